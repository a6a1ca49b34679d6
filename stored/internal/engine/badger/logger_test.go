package badger

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

func TestBackgroundFailurePoisons(t *testing.T) {
	for format, want := range map[string]bool{
		"error flushing memtable to disk: %v, retrying":                                true,
		"[Compactor: %d] LOG Compact FAILED with error: no space":                      true,
		"LOG Compact FAILED with error: there is a non-empty level 2 above base level": false,
		"Block cache might be too small. Metrics: %v":                                  false,
	} {
		failed := false
		log := logger{slog.New(slog.DiscardHandler), func(string) { failed = true }}
		log.Warningf(format, 1)
		if failed != want {
			t.Errorf("%q: failure %v, want %v", format, failed, want)
		}
	}
	e := mustOpen(t, t.TempDir())
	write(t, e, 1, 3)
	e.onFailure("error flushing memtable to disk")
	if err := e.Commit(position(4), nil); !errors.Is(err, engine.ErrPoisoned) {
		t.Errorf("commit: %v", err)
	}
	if err := e.Close(); !errors.Is(err, engine.ErrPoisoned) {
		t.Errorf("close: %v", err)
	}
	if err := e.db.Close(); err != nil { // what Close leaves to the end of the process
		t.Error(err)
	}
}

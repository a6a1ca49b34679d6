package badger

import (
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/engine/enginetest"
)

type disk string

func (d disk) Open(t testing.TB) engine.Engine { return mustOpen(t, string(d)) }

func mustOpen(t testing.TB, dir string) *Engine {
	t.Helper()
	e, err := Open(dir, SmallConfig(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return e
}

func TestEngine(t *testing.T) {
	enginetest.Run(t, func(t testing.TB) enginetest.Disk { return disk(t.TempDir()) })
}

func TestCloseEndsAllGoroutines(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	e := mustOpen(t, t.TempDir())
	if err := e.Commit(engine.Position{Stamp: 1}, []engine.Row{{Key: []byte("a"), Stamp: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

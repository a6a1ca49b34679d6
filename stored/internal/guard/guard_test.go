package guard_test

import (
	"errors"
	"testing"

	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/engine/enginetest"
	"github.com/quartet-kv/quartet/stored/internal/engine/memory"
	"github.com/quartet-kv/quartet/stored/internal/guard"
)

type disk struct{ *memory.Disk }

func (d disk) Open(t testing.TB) engine.Engine {
	e, err := d.Disk.Open()
	if err != nil {
		t.Fatal(err)
	}
	return guard.New(e)
}

func TestGuardedEngineIsAnEngine(t *testing.T) {
	enginetest.Run(t, func(testing.TB) enginetest.Disk { return disk{memory.NewDisk()} })
}

func TestCloseEndsIterators(t *testing.T) {
	e := guard.New(memory.New())
	rows := []engine.Row{{Key: []byte("a"), Value: []byte("1"), Stamp: 1}, {Key: []byte("b"), Value: []byte("2"), Stamp: 1}}
	if err := e.Commit(engine.Position{Stamp: 1}, rows); err != nil {
		t.Fatal(err)
	}
	it := e.Iterate(engine.IterOptions{At: 1})
	if !it.Next() || string(it.Row().Value) != "1" {
		t.Fatal("no first row")
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if it.Next() || !errors.Is(it.Err(), engine.ErrClosed) {
		t.Errorf("iterator of a closed engine: %v", it.Err())
	}
	it.Close()
	if _, _, err := e.Get([]byte("a"), 1); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("get of a closed engine: %v", err)
	}
	if again := e.Iterate(engine.IterOptions{At: 1}); again.Next() || !errors.Is(again.Err(), engine.ErrClosed) {
		t.Error("iterate of a closed engine")
	}
}

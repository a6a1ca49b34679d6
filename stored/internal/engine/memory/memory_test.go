package memory_test

import (
	"math/rand/v2"
	"testing"

	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/engine/enginetest"
	"github.com/quartet-kv/quartet/stored/internal/engine/memory"
)

type disk struct{ *memory.Disk }

func (d disk) Open(t testing.TB) engine.Engine {
	e, err := d.Disk.Open()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEngine(t *testing.T) {
	enginetest.Run(t, func(testing.TB) enginetest.Disk { return disk{memory.NewDisk()} })
}

func TestPowerCutKeepsWhatWasSynced(t *testing.T) {
	d := memory.NewDisk()
	e, err := d.Open()
	if err != nil {
		t.Fatal(err)
	}
	key := []byte("a")
	for s := engine.Stamp(1); s <= 20; s++ {
		if err := e.Commit(engine.Position{Stamp: s}, []engine.Row{{Key: key, Value: []byte{byte(s)}, Stamp: s}}); err != nil {
			t.Fatal(err)
		}
		if s == 10 {
			if _, err := e.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	kept := make(map[engine.Stamp]bool)
	d.PowerCut(func(r engine.Row) bool {
		kept[r.Stamp] = rand.IntN(2) == 0
		return kept[r.Stamp]
	})
	if err := e.Commit(engine.Position{Stamp: 21}, nil); err == nil {
		t.Fatal("the engine lives on after the power cut")
	}
	if e, err = d.Open(); err != nil {
		t.Fatal(err)
	}
	if e.Synced().Stamp != 10 {
		t.Fatalf("synced %v", e.Synced())
	}
	for s := engine.Stamp(1); s <= 20; s++ {
		_, at, err := e.Get(key, s)
		if there := err == nil && at == s; there != (s <= 10 || kept[s]) {
			t.Errorf("version %d: there %v, kept %v", s, there, kept[s])
		}
	}
}

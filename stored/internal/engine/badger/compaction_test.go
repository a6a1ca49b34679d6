package badger

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// withTable is a directory whose engine has one table, and the table's path.
func withTable(t *testing.T, rows engine.Stamp) (dir, table string) {
	t.Helper()
	dir = t.TempDir()
	e := mustOpen(t, dir)
	write(t, e, 1, rows)
	if _, err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatalf("tables %v, %v, want one", tables, err)
	}
	return dir, tables[0]
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamageMetByCompaction: the compaction drops rows and deletes the table
// that had them. Nothing may be synced or answered after it.
func TestDamageMetByCompaction(t *testing.T) {
	dir, table := withTable(t, 500)
	flip(t, table, 9000)
	tables := SmallConfig().options(dir, nil).NumLevelZeroTables
	for life := 1; life < tables; life++ { // each leaves one more table in level 0
		e := mustOpen(t, dir)
		write(t, e, engine.Stamp(500+life), engine.Stamp(500+life))
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	e := mustOpen(t, dir)
	defer e.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		_, err := e.Sync()
		if errors.Is(err, engine.ErrCorrupt) {
			break
		}
		if err != nil || ctx.Err() != nil {
			t.Fatalf("sync, though a compaction met damage: %v; tables %v", err, e.db.LevelsToString())
		}
	}
	if _, _, err := e.Get(key(1), 500); !errors.Is(err, engine.ErrCorrupt) {
		t.Fatalf("get after a compaction met damage: %v", err)
	}
}

// TestDamageOfAnotherEngine: the count of mismatches is the process's, the
// damage is one engine's.
func TestDamageOfAnotherEngine(t *testing.T) {
	dir, table := withTable(t, 500)
	flip(t, table, 9000)
	damaged := mustOpen(t, dir)
	defer damaged.Close()
	sound := mustOpen(t, t.TempDir())
	defer sound.Close()
	write(t, sound, 1, 10)
	it := damaged.Iterate(engine.IterOptions{At: 500})
	defer it.Close()
	for it.Next() {
	}
	if !errors.Is(it.Err(), engine.ErrCorrupt) {
		t.Fatalf("iterate over damage: %v", it.Err())
	}
	check(t, sound, 1, 10)
	if _, err := sound.Sync(); err != nil {
		t.Fatalf("sync of the sound engine: %v", err)
	}
}

// TestDiskStaysBounded overwrites few keys for long and purges as a store
// does: each superseded version and each history row below the floor.
func TestDiskStaysBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 43 MB")
	}
	e := mustOpen(t, t.TempDir())
	defer e.Close()
	const keys, perSync, syncs = 100, 5000, 30
	history := func(s engine.Stamp) []byte { return binary.BigEndian.AppendUint64([]byte{'h'}, uint64(s)) }
	var s, floor engine.Stamp
	for range syncs {
		var rows []engine.Row
		for range perSync {
			s++
			rows = append(rows, engine.Row{Key: key(s % keys), Value: make([]byte, 256), Stamp: s},
				engine.Row{Key: history(s), Value: key(s % keys), Stamp: s})
		}
		if err := e.Commit(position(s), rows); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Sync(); err != nil {
			t.Fatal(err)
		}
		var versions []engine.Version
		for ; floor < s-keys; floor++ {
			versions = append(versions, engine.Version{Key: key(floor % keys), Stamp: floor}, engine.Version{Key: history(floor), Stamp: floor})
		}
		if err := e.Purge(s, versions); err != nil {
			t.Fatal(err)
		}
	}
	sizes := e.Sizes()
	t.Logf("%d MB written, %d MB on disk", s*300>>20, sizes.Disk>>20)
	// A full level 0 of small memtables, one being written, and their slack.
	if bound := 3 * SmallConfig().MemtableBytes; sizes.Disk > bound {
		t.Fatalf("%d bytes on disk for %d keys, more than %d", sizes.Disk, keys, bound)
	}
}

package badger

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quartet-kv/quartet/services/logid"
	"github.com/quartet-kv/quartet/stored/internal/engine"
)

func position(s engine.Stamp) engine.Position {
	return engine.Position{Log: logid.ID{Epoch: 1, Index: logid.Index(s), Term: 1}, Stamp: s}
}

func key(i engine.Stamp) []byte { return fmt.Appendf(nil, "key%06d", i) }

func value(i engine.Stamp) []byte {
	return []byte(strings.Repeat(fmt.Sprintf("value %d ", i), 8))
}

// write commits one row per stamp, from and to included.
func write(t testing.TB, e engine.Engine, from, to engine.Stamp) {
	t.Helper()
	for s := from; s <= to; s++ {
		if err := e.Commit(position(s), []engine.Row{{Key: key(s), Value: value(s), Stamp: s}}); err != nil {
			t.Fatalf("commit at %d: %v", s, err)
		}
	}
}

// check expects the rows that write wrote.
func check(t testing.TB, e engine.Engine, from, to engine.Stamp) {
	t.Helper()
	for s := from; s <= to; s++ {
		got, at, err := e.Get(key(s), to)
		if err != nil || at != s || string(got) != string(value(s)) {
			t.Fatalf("get %s = %.20q@%d, %v", key(s), got, at, err)
		}
	}
}

// copyDir is what a power cut leaves of an engine's directory, if nothing is
// written meanwhile. change may alter a file's bytes; nil leaves it out.
func copyDir(t testing.TB, from string, change func(name string, data []byte) []byte) string {
	t.Helper()
	to := t.TempDir()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(from, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if entry.Name() == "LOCK" {
			continue
		}
		if data = change(entry.Name(), data); data == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(to, entry.Name()), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func TestPowerCutLosesNothingSynced(t *testing.T) {
	dir := t.TempDir()
	e := mustOpen(t, dir)
	defer e.Close()
	write(t, e, 1, 300)
	if _, err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	synced := e.synced.Load().Files
	write(t, e, 301, 400)
	if len(synced) != 1 {
		t.Fatalf("write-ahead files %v, want one", synced)
	}
	end := int(synced[0].Bytes)
	// The tail may be lost, be zeros, be older bytes, or be there in part.
	for name, cut := range map[string]func(data []byte) []byte{
		"all there": func(d []byte) []byte { return d },
		"shorter":   func(d []byte) []byte { return d[:end] },
		"zeros":     func(d []byte) []byte { clear(d[end:]); return d },
		"a hole":    func(d []byte) []byte { clear(d[end+100 : end+4000]); return d },
		"garbage": func(d []byte) []byte {
			for i := end; i < end+5000; i++ {
				d[i] = byte(i * 7)
			}
			return d
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := mustOpen(t, copyDir(t, dir, func(file string, data []byte) []byte {
				if file == synced[0].Name {
					return cut(data)
				}
				return data
			}))
			defer e.Close()
			if got := e.Synced(); got != position(300) {
				t.Fatalf("synced %v, want %v", got, position(300))
			}
			check(t, e, 1, 300)
			write(t, e, 301, 400) // replay
			check(t, e, 1, 400)
		})
	}
}

func TestOpenRefusesDamagedWriteAheadFile(t *testing.T) {
	dir := t.TempDir()
	e := mustOpen(t, dir)
	defer e.Close()
	write(t, e, 1, 300)
	if _, err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	file := e.synced.Load().Files[0]
	for at := int64(walHeadBytes); at < file.Bytes; at += 1 + file.Bytes/41 {
		damaged := copyDir(t, dir, func(name string, data []byte) []byte {
			if name == file.Name {
				data[at] ^= 0x10
			}
			return data
		})
		if e, err := Open(damaged, SmallConfig(), slog.New(slog.DiscardHandler)); !errors.Is(err, engine.ErrCorrupt) {
			t.Fatalf("open with byte %d of %d damaged: %v, %v", at, file.Bytes, e, err)
		}
	}
}

func TestOpenRefusesDamagedMarker(t *testing.T) {
	dir := t.TempDir()
	e := mustOpen(t, dir)
	write(t, e, 1, 3)
	if _, err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, markerName))
	if err != nil {
		t.Fatal(err)
	}
	for at := range raw {
		damaged := copyDir(t, dir, func(name string, data []byte) []byte {
			if name == markerName {
				data[at] ^= 0x04
			}
			return data
		})
		if _, err := readMarker(damaged); !errors.Is(err, engine.ErrCorrupt) {
			t.Fatalf("marker with byte %d of %d damaged: %v", at, len(raw), err)
		}
	}
}

// TestNoDamagedTableIsBelieved flips bytes all over a table. Whatever Badger
// makes of it, no read may say that a row is not there, or is another one.
func TestNoDamagedTableIsBelieved(t *testing.T) {
	dir := t.TempDir()
	e := mustOpen(t, dir)
	const rows = 500
	write(t, e, 1, rows)
	if _, err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil { // the memtable becomes a table
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatalf("tables %v, %v, want one", tables, err)
	}
	info, err := os.Stat(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	flips := int64(80)
	if testing.Short() {
		flips = 25
	}
	for at := int64(0); at < info.Size(); at += 1 + info.Size()/flips {
		readDamaged(t, copyDir(t, dir, func(name string, data []byte) []byte {
			if name == filepath.Base(tables[0]) {
				data[at] ^= 0x20
			}
			return data
		}), at, rows)
	}
}

func readDamaged(t *testing.T, dir string, at int64, rows engine.Stamp) {
	t.Helper()
	e, err := Open(dir, SmallConfig(), slog.New(slog.DiscardHandler))
	if err != nil {
		return // refused
	}
	defer e.Close()
	refused := func(err error) bool { return errors.Is(err, engine.ErrCorrupt) }
	for s := engine.Stamp(1); s <= rows; s += 7 {
		got, _, err := e.Get(key(s), rows)
		if refused(err) {
			return
		}
		if err != nil || string(got) != string(value(s)) {
			t.Fatalf("byte %d damaged: get %s = %.20q, %v", at, key(s), got, err)
		}
	}
	it := e.Iterate(engine.IterOptions{At: rows})
	defer it.Close()
	n := 0
	for it.Next() {
		n++
		if s := it.Row().Stamp; string(it.Row().Key) != string(key(s)) || string(it.Row().Value) != string(value(s)) {
			t.Fatalf("byte %d damaged: row %q=%.20q@%d", at, it.Row().Key, it.Row().Value, s)
		}
	}
	if it.Err() == nil && n != int(rows) {
		t.Fatalf("byte %d damaged: %d rows of %d without an error", at, n, rows)
	}
}

func TestFailedFsyncPoisons(t *testing.T) {
	e := mustOpen(t, t.TempDir())
	defer e.Close()
	write(t, e, 1, 10)
	if _, err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	write(t, e, 11, 20)
	disk := errors.New("disk on fire")
	e.fsync = func(*os.File) error { return disk }
	if _, err := e.Sync(); !errors.Is(err, disk) || !errors.Is(err, engine.ErrPoisoned) {
		t.Fatalf("sync on a broken disk: %v", err)
	}
	e.fsync = (*os.File).Sync
	if _, err := e.Sync(); !errors.Is(err, engine.ErrPoisoned) {
		t.Fatalf("sync after a failed one: %v", err)
	}
	if err := e.Commit(position(21), nil); !errors.Is(err, engine.ErrPoisoned) {
		t.Fatalf("commit after a failed sync: %v", err)
	}
	if _, _, err := e.Get(key(1), 20); !errors.Is(err, engine.ErrPoisoned) {
		t.Fatalf("get after a failed sync: %v", err)
	}
	if got := e.Synced(); got != position(10) {
		t.Fatalf("synced %v after a failed sync, want %v", got, position(10))
	}
}

// TestOpenAfterKillBetweenSteps makes what a process leaves that is killed
// between two system calls of Badger's.
func TestOpenAfterKillBetweenSteps(t *testing.T) {
	dir := t.TempDir()
	e := mustOpen(t, dir)
	write(t, e, 1, 10)
	if _, err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	left := copyDir(t, dir, func(_ string, data []byte) []byte { return data })
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"00099.mem", "000099.sst", "SYNCED.new"} {
		if err := os.WriteFile(filepath.Join(left, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e = mustOpen(t, left)
	check(t, e, 1, 10)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	// The write-ahead file became a table, and its name is given out again.
	e = mustOpen(t, left)
	write(t, e, 11, 12)
	again := copyDir(t, left, func(_ string, data []byte) []byte { return data })
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = mustOpen(t, again)
	defer e.Close()
	check(t, e, 1, 10)
}

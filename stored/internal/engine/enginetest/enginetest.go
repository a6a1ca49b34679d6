// Package enginetest is the conformance suite of storage engines: what
// engine.Engine promises, as tests that every engine passes.
package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/quartet-kv/quartet/services/logid"
	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// Disk is where an engine keeps its rows from one life to the next.
type Disk interface {
	// Open opens the engine. It fails the test if it cannot.
	Open(t testing.TB) engine.Engine
}

// Run runs the suite. Each call of disk returns an empty Disk.
func Run(t *testing.T, disk func(t testing.TB) Disk) {
	tests := []struct {
		name string
		run  func(t *testing.T, d Disk)
	}{
		{"GetFindsNewestAtOrBelow", getFindsNewest},
		{"GetTellsEmptyValueFromNone", getEmptyValue},
		{"KeysMayBeAnyBytes", anyKeys},
		{"StampsMayBeExtreme", extremeStamps},
		{"CommitReplacesVersion", commitReplaces},
		{"CommitKeepsNoReference", commitKeepsNoReference},
		{"CommitRefusesTooLarge", commitRefusesTooLarge},
		{"LargeValues", largeValues},
		{"LargeBatch", largeBatch},
		{"ManyVersions", manyVersions},
		{"IterateBounds", iterateBounds},
		{"IterateAtOldStamps", iterateAtOldStamps},
		{"IterateAllVersions", iterateAllVersions},
		{"IterateSeesNoLaterCommit", iterateSeesNoLaterCommit},
		{"SyncSurvivesReopen", syncSurvivesReopen},
		{"SyncedIsZeroAtFirst", syncedIsZero},
		{"ReplayReachesTheSameRows", replayReaches},
		{"PurgeHidesNothingAboveFloor", purgeHidesNothing},
		{"PurgeRefusesUnsyncedFloor", purgeRefusesUnsynced},
		{"PurgeOfLargeValues", purgeLarge},
		{"ReadersBesideWriter", readersBesideWriter},
		{"ClosedRefuses", closedRefuses},
		{"CloseBesideReaders", closeBesideReaders},
		{"Model", model},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, disk(t)) })
	}
}

// at is a position with the log index equal to the stamp.
func at(s engine.Stamp) engine.Position {
	return engine.Position{Log: logid.ID{Epoch: 1, Index: logid.Index(s), Term: 1}, Stamp: s}
}

func row(key, value string, s engine.Stamp) engine.Row {
	return engine.Row{Key: []byte(key), Value: []byte(value), Stamp: s}
}

func mustCommit(t testing.TB, e engine.Engine, s engine.Stamp, rows ...engine.Row) {
	t.Helper()
	if err := e.Commit(at(s), rows); err != nil {
		t.Fatalf("commit at %d: %v", s, err)
	}
}

func mustSync(t testing.TB, e engine.Engine) engine.Position {
	t.Helper()
	pos, err := e.Sync()
	if err != nil {
		t.Fatalf("sync: %v", err)
	}
	return pos
}

func mustClose(t testing.TB, e engine.Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

// wantGet expects value@stamp; stamp 0 with value "none" expects ErrNotFound.
func wantGet(t testing.TB, e engine.Engine, key string, s engine.Stamp, value string, stamp engine.Stamp) {
	t.Helper()
	got, gotStamp, err := e.Get([]byte(key), s)
	if err != nil {
		t.Fatalf("get %q@%d: %v, want %q@%d", key, s, err, value, stamp)
	}
	if string(got) != value || gotStamp != stamp {
		t.Fatalf("get %q@%d = %.40q@%d, want %.40q@%d", key, s, got, gotStamp, value, stamp)
	}
}

func wantNone(t testing.TB, e engine.Engine, key string, s engine.Stamp) {
	t.Helper()
	if v, vs, err := e.Get([]byte(key), s); !errors.Is(err, engine.ErrNotFound) {
		t.Fatalf("get %q@%d = %q@%d, %v, want ErrNotFound", key, s, v, vs, err)
	}
}

// collect runs an iterator and returns its rows as text.
func collect(t testing.TB, e engine.Engine, opts engine.IterOptions) []string {
	t.Helper()
	it := e.Iterate(opts)
	defer it.Close()
	var out []string
	for it.Next() {
		r := it.Row()
		if opts.KeysOnly {
			if r.Value != nil {
				t.Fatalf("keys only, but %q has a value", r.Key)
			}
			out = append(out, fmt.Sprintf("%s@%d", r.Key, r.Stamp))
			continue
		}
		out = append(out, fmt.Sprintf("%s=%s@%d", r.Key, r.Value, r.Stamp))
	}
	if err := it.Err(); err != nil {
		t.Fatalf("iterate %+v: %v", opts, err)
	}
	return out
}

func wantRows(t testing.TB, e engine.Engine, opts engine.IterOptions, want ...string) {
	t.Helper()
	got := collect(t, e, opts)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("iterate %q..%q at %d (all %v, reverse %v)\n got %v\nwant %v", opts.Lower, opts.Upper, opts.At, opts.AllVersions, opts.Reverse, got, want)
	}
}

func getFindsNewest(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	mustCommit(t, e, 3, row("a", "1", 1), row("b", "2", 2), row("a", "3", 3))
	mustCommit(t, e, 7, row("a", "7", 7))
	wantNone(t, e, "a", 0)
	wantGet(t, e, "a", 1, "1", 1)
	wantGet(t, e, "a", 2, "1", 1)
	wantGet(t, e, "a", 3, "3", 3)
	wantGet(t, e, "a", 6, "3", 3)
	wantGet(t, e, "a", 7, "7", 7)
	wantGet(t, e, "a", math.MaxUint64, "7", 7)
	wantNone(t, e, "b", 1)
	wantGet(t, e, "b", 7, "2", 2)
	wantNone(t, e, "", 7)
	wantNone(t, e, "aa", 7)
}

func getEmptyValue(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	mustCommit(t, e, 1, engine.Row{Key: []byte("nil"), Stamp: 1}, row("empty", "", 1))
	for _, key := range []string{"nil", "empty"} {
		value, s, err := e.Get([]byte(key), 1)
		if err != nil || value == nil || len(value) != 0 || s != 1 {
			t.Fatalf("get %q = %v@%d, %v, want an empty value that is not nil", key, value, s, err)
		}
	}
	wantRows(t, e, engine.IterOptions{At: 1}, "empty=@1", "nil=@1")
}

func anyKeys(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	long := bytes.Repeat([]byte{0xff}, engine.KeyBytesMax)
	keys := [][]byte{{}, {0}, {0, 0}, []byte("!badger!x"), []byte("r"), []byte("rr"), {0xff}, {0xff, 0xff}, long}
	var rows []engine.Row
	for i, k := range keys {
		rows = append(rows, engine.Row{Key: k, Value: []byte{byte(i)}, Stamp: 1})
	}
	mustCommit(t, e, 1, rows...)
	for i, k := range keys {
		wantGet(t, e, string(k), 1, string([]byte{byte(i)}), 1)
	}
	it := e.Iterate(engine.IterOptions{At: 1})
	defer it.Close()
	var last []byte
	n := 0
	for it.Next() {
		if n > 0 && bytes.Compare(last, it.Row().Key) >= 0 {
			t.Fatalf("%.20q after %.20q", it.Row().Key, last)
		}
		last = it.Row().Key
		n++
	}
	if n != len(keys) || it.Err() != nil {
		t.Fatalf("%d keys, %v, want %d", n, it.Err(), len(keys))
	}
}

func extremeStamps(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	const far = engine.Stamp(math.MaxUint64 - 2)
	mustCommit(t, e, far, row("a", "zero", 0), row("a", "far", far))
	wantGet(t, e, "a", 0, "zero", 0)
	wantGet(t, e, "a", far-1, "zero", 0)
	wantGet(t, e, "a", far, "far", far)
}

func commitReplaces(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	mustCommit(t, e, 5, row("a", "old", 4), row("a", "five", 5))
	mustCommit(t, e, 5, row("a", "new", 4))
	wantGet(t, e, "a", 4, "new", 4)
	wantGet(t, e, "a", 5, "five", 5)
	wantRows(t, e, engine.IterOptions{At: 9, AllVersions: true}, "a=five@5", "a=new@4")
}

func commitKeepsNoReference(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	r := row("key", "value", 1)
	mustCommit(t, e, 1, r)
	copy(r.Key, "xxx")
	copy(r.Value, "xxxxx")
	wantGet(t, e, "key", 1, "value", 1)
	wantNone(t, e, "xxx", 1)
}

func commitRefusesTooLarge(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	tooLong := engine.Row{Key: make([]byte, engine.KeyBytesMax+1), Stamp: 1}
	if err := e.Commit(at(1), []engine.Row{row("a", "1", 1), tooLong}); !errors.Is(err, engine.ErrTooLarge) {
		t.Fatalf("commit of a key beyond the limit: %v", err)
	}
	wantNone(t, e, "a", 1)
	mustCommit(t, e, 1, row("a", "1", 1))
	wantGet(t, e, "a", 1, "1", 1)
}

func closedRefuses(t *testing.T, d Disk) {
	e := d.Open(t)
	mustCommit(t, e, 1, row("a", "1", 1))
	mustClose(t, e)
	mustClose(t, e)
	if err := e.Commit(at(2), nil); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("commit: %v", err)
	}
	if _, _, err := e.Get([]byte("a"), 1); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("get: %v", err)
	}
	if _, err := e.Sync(); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("sync: %v", err)
	}
	if err := e.Purge(0, nil); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("purge: %v", err)
	}
	it := e.Iterate(engine.IterOptions{At: 1})
	defer it.Close()
	if it.Next() || !errors.Is(it.Err(), engine.ErrClosed) {
		t.Errorf("iterate: %v", it.Err())
	}
}

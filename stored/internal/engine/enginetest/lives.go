package enginetest

import (
	"fmt"
	"testing"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

func syncedIsZero(t *testing.T, d Disk) {
	e := d.Open(t)
	mustCommit(t, e, 5, row("a", "1", 5))
	if got := e.Synced(); got != (engine.Position{}) {
		t.Fatalf("synced %v before the first Sync", got)
	}
	mustClose(t, e)
	e = d.Open(t)
	defer mustClose(t, e)
	if got := e.Synced(); got != (engine.Position{}) {
		t.Fatalf("synced %v in the second life, without a Sync", got)
	}
}

func syncSurvivesReopen(t *testing.T, d Disk) {
	var s engine.Stamp
	for life := range 5 {
		e := d.Open(t)
		if got := e.Synced(); got.Stamp != s || s != 0 && got != at(s) {
			t.Fatalf("life %d starts at %v, want %v", life, got, at(s))
		}
		for a := engine.Stamp(1); a <= s; a++ {
			wantGet(t, e, "a", a, fmt.Sprint(a), a)
		}
		if n := len(collect(t, e, engine.IterOptions{At: s})); s > 0 && n != int(s)+1 {
			t.Fatalf("life %d has %d keys, want %d", life, n, s+1)
		}
		for range 10 {
			s++
			mustCommit(t, e, s, row("a", fmt.Sprint(s), s), row(fmt.Sprintf("b%03d", s), "x", s))
		}
		if got := mustSync(t, e); got != at(s) {
			t.Fatalf("sync returned %v, want %v", got, at(s))
		}
		if got := e.Synced(); got != at(s) {
			t.Fatalf("synced %v, want %v", got, at(s))
		}
		// What follows the Sync may or may not be there.
		mustCommit(t, e, s+1, row("a", "unsynced", s+1))
		mustClose(t, e)
	}
}

// replayReaches leaves rows behind the synced stamp, and replays over them.
func replayReaches(t *testing.T, d Disk) {
	commit := func(e engine.Engine, s engine.Stamp) {
		mustCommit(t, e, s, row("a", fmt.Sprint(s), s), row(fmt.Sprintf("k%d", s%5), fmt.Sprint(s), s))
	}
	e := d.Open(t)
	for s := engine.Stamp(1); s <= 10; s++ {
		commit(e, s)
	}
	mustSync(t, e)
	for s := engine.Stamp(11); s <= 20; s++ {
		commit(e, s)
	}
	mustClose(t, e)

	e = d.Open(t)
	defer mustClose(t, e)
	if got := e.Synced(); got != at(10) {
		t.Fatalf("synced %v, want %v", got, at(10))
	}
	for s := engine.Stamp(11); s <= 20; s++ {
		wantGet(t, e, "a", s-1, fmt.Sprint(s-1), s-1)
		commit(e, s)
	}
	wantRows(t, e, engine.IterOptions{At: 10}, "a=10@10", "k0=10@10", "k1=6@6", "k2=7@7", "k3=8@8", "k4=9@9")
	wantRows(t, e, engine.IterOptions{At: 20}, "a=20@20", "k0=20@20", "k1=16@16", "k2=17@17", "k3=18@18", "k4=19@19")
}

func purgeHidesNothing(t *testing.T, d Disk) {
	e := d.Open(t)
	mustCommit(t, e, 6,
		row("a", "1", 1), row("a", "3", 3), row("a", "6", 6),
		row("b", "2", 2), row("b", "tombstone", 4),
		row("c", "5", 5))
	mustSync(t, e)
	named := []engine.Version{{Key: []byte("a"), Stamp: 1}, {Key: []byte("b"), Stamp: 2}, {Key: []byte("b"), Stamp: 4}}
	if err := e.Purge(5, named); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		wantRows(t, e, engine.IterOptions{At: 5}, "a=3@3", "c=5@5")
		wantRows(t, e, engine.IterOptions{At: 6}, "a=6@6", "c=5@5")
		wantRows(t, e, engine.IterOptions{At: 6, Reverse: true}, "c=5@5", "a=6@6")
		wantNone(t, e, "b", 6)
		wantGet(t, e, "a", 5, "3", 3)
	}
	check()
	if err := e.Purge(5, named); err != nil {
		t.Fatalf("purge again: %v", err)
	}
	check()
	mustSync(t, e)
	mustClose(t, e)
	e = d.Open(t)
	defer mustClose(t, e)
	check()
	mustCommit(t, e, 7, row("b", "7", 7))
	wantGet(t, e, "b", 7, "7", 7)
	wantNone(t, e, "b", 6)
}

func purgeRefusesUnsynced(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	mustCommit(t, e, 4, row("a", "1", 1))
	if err := e.Purge(1, []engine.Version{{Key: []byte("a"), Stamp: 1}}); err == nil {
		t.Fatal("purge above what is synced went through")
	}
	mustSync(t, e)
	if err := e.Purge(2, []engine.Version{{Key: []byte("a"), Stamp: 3}}); err == nil {
		t.Fatal("purge of a version above the floor went through")
	}
	wantGet(t, e, "a", 4, "1", 1)
}

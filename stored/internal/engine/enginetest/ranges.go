package enginetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

func iterateBounds(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	mustCommit(t, e, 1, row("a", "1", 1), row("b", "2", 1), row("ba", "3", 1), row("c", "4", 1))
	b := func(s string) []byte { return []byte(s) }
	for _, c := range []struct {
		lower, upper []byte
		want         []string
	}{
		{nil, nil, []string{"a@1", "b@1", "ba@1", "c@1"}},
		{b("b"), nil, []string{"b@1", "ba@1", "c@1"}},
		{b("b"), b("c"), []string{"b@1", "ba@1"}},
		{b("b\x00"), b("c\x00"), []string{"ba@1", "c@1"}},
		{nil, b("b"), []string{"a@1"}},
		{nil, b("0"), nil},
		{b("d"), nil, nil},
		{b("c"), b("b"), nil},
		{b("b"), b("b"), nil},
		{nil, b("zz"), []string{"a@1", "b@1", "ba@1", "c@1"}},
	} {
		opts := engine.IterOptions{Lower: c.lower, Upper: c.upper, At: 1, KeysOnly: true}
		wantRows(t, e, opts, c.want...)
		var reversed []string
		for i := len(c.want) - 1; i >= 0; i-- {
			reversed = append(reversed, c.want[i])
		}
		opts.Reverse = true
		wantRows(t, e, opts, reversed...)
	}
}

func iterateAtOldStamps(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	mustCommit(t, e, 3, row("a", "1", 1), row("b", "2", 2), row("c", "3", 3))
	mustCommit(t, e, 6, row("a", "4", 4), row("b", "5", 5), row("d", "6", 6))
	wantRows(t, e, engine.IterOptions{At: 0})
	wantRows(t, e, engine.IterOptions{At: 1}, "a=1@1")
	wantRows(t, e, engine.IterOptions{At: 3}, "a=1@1", "b=2@2", "c=3@3")
	wantRows(t, e, engine.IterOptions{At: 4}, "a=4@4", "b=2@2", "c=3@3")
	wantRows(t, e, engine.IterOptions{At: 6}, "a=4@4", "b=5@5", "c=3@3", "d=6@6")
	wantRows(t, e, engine.IterOptions{At: 4, Reverse: true}, "c=3@3", "b=2@2", "a=4@4")
	wantRows(t, e, engine.IterOptions{At: 1, Reverse: true}, "a=1@1")
}

func iterateAllVersions(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	mustCommit(t, e, 9, row("a", "1", 1), row("a", "2", 2), row("a", "9", 9), row("b", "3", 3))
	wantRows(t, e, engine.IterOptions{At: 8, AllVersions: true}, "a=2@2", "a=1@1", "b=3@3")
	wantRows(t, e, engine.IterOptions{At: 9, AllVersions: true, KeysOnly: true}, "a@9", "a@2", "a@1", "b@3")
	wantRows(t, e, engine.IterOptions{At: 9, AllVersions: true, Lower: []byte("b")}, "b=3@3")
}

func iterateSeesNoLaterCommit(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	mustCommit(t, e, 2, row("a", "1", 1), row("c", "2", 2))
	it := e.Iterate(engine.IterOptions{At: 2})
	defer it.Close()
	if !it.Next() || string(it.Row().Key) != "a" {
		t.Fatalf("first row %q, %v", it.Row().Key, it.Err())
	}
	mustCommit(t, e, 4, row("b", "3", 3), row("c", "4", 4))
	if !it.Next() || string(it.Row().Value) != "2" {
		t.Fatalf("second row %q=%q, %v, want c=2", it.Row().Key, it.Row().Value, it.Err())
	}
	if it.Next() {
		t.Fatalf("a third row %q", it.Row().Key)
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
}

func manyVersions(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	const versions = 2000
	var s engine.Stamp
	for s < versions {
		var rows []engine.Row
		for range 100 {
			s++
			rows = append(rows, row("hot", fmt.Sprint(s), s))
		}
		mustCommit(t, e, s, rows...)
	}
	mustCommit(t, e, s+1, row("hotter", "x", s+1))
	for _, a := range []engine.Stamp{1, 99, 100, 101, 1234, versions} {
		wantGet(t, e, "hot", a, fmt.Sprint(a), a)
		wantRows(t, e, engine.IterOptions{At: a}, fmt.Sprintf("hot=%d@%d", a, a))
		wantRows(t, e, engine.IterOptions{At: a, Reverse: true}, fmt.Sprintf("hot=%d@%d", a, a))
	}
	if n := len(collect(t, e, engine.IterOptions{At: versions, AllVersions: true})); n != versions {
		t.Fatalf("%d versions, want %d", n, versions)
	}
}

// readersBesideWriter is worth running with the race detector.
func readersBesideWriter(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	const keys, commits = 16, 200
	name := func(k int) string { return fmt.Sprintf("key%02d", k) }
	write := func(s engine.Stamp) {
		rows := make([]engine.Row, keys)
		for k := range rows {
			rows[k] = row(name(k), fmt.Sprint(s), s)
		}
		mustCommit(t, e, s, rows...)
	}
	write(1)
	var wg sync.WaitGroup
	done := make(chan struct{})
	committed := make(chan engine.Stamp, 1)
	committed <- 1
	for range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-done:
					return
				case s := <-committed:
					committed <- s
					if err := oneStamp(e, s, keys); err != nil {
						t.Errorf("at %d: %v", s, err)
						return
					}
				}
			}
		}()
	}
	for s := engine.Stamp(2); s <= commits; s++ {
		write(s)
		<-committed
		committed <- s
	}
	close(done)
	wg.Wait()
}

// oneStamp expects each key to have been written at s.
func oneStamp(e engine.Engine, s engine.Stamp, keys int) error {
	it := e.Iterate(engine.IterOptions{At: s})
	defer it.Close()
	n := 0
	for it.Next() {
		if r := it.Row(); r.Stamp != s || string(r.Value) != fmt.Sprint(s) {
			return fmt.Errorf("%q=%q@%d", r.Key, r.Value, r.Stamp)
		}
		n++
	}
	if n != keys {
		return fmt.Errorf("%d keys, %v", n, it.Err())
	}
	return it.Err()
}

// closeBesideReaders closes under running reads and open iterators, which must
// end with ErrClosed and nothing worse.
func closeBesideReaders(t *testing.T, d Disk) {
	e := d.Open(t)
	const keys = 500
	rows := make([]engine.Row, keys)
	for k := range rows {
		rows[k] = row(fmt.Sprintf("key%03d", k), "value", 1)
	}
	mustCommit(t, e, 1, rows...)
	mustClose(t, e) // so that rows are where the engine keeps what is old
	e = d.Open(t)
	mustCommit(t, e, 1, rows...)
	var wg sync.WaitGroup
	reading := make(chan struct{}, 8)
	for reader := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			read := func() error { _, _, err := e.Get([]byte("key123"), 1); return err }
			if reader%2 == 0 {
				read = func() error {
					it := e.Iterate(engine.IterOptions{At: 1})
					defer it.Close()
					for it.Next() {
					}
					return it.Err()
				}
			}
			for n := 0; ; n++ {
				if err := read(); err != nil {
					if !errors.Is(err, engine.ErrClosed) {
						t.Errorf("beside Close: %v", err)
					}
					return
				}
				if n == 10 {
					reading <- struct{}{}
				}
			}
		}()
	}
	open := e.Iterate(engine.IterOptions{At: 1})
	if !open.Next() {
		t.Fatal(open.Err())
	}
	for range 4 {
		<-reading
	}
	mustClose(t, e)
	wg.Wait()
	if open.Next() || !errors.Is(open.Err(), engine.ErrClosed) {
		t.Errorf("an open iterator after Close: %v", open.Err())
	}
	open.Close()
}

package enginetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// noise is n bytes that do not compress, the same for the same seed.
func noise(seed uint64, n int) []byte {
	out := make([]byte, n)
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	source.Read(out) // never fails
	return out
}

// largeSizes stand around the sizes at which engines change their ways: a
// request of etcd's is 1.5 MiB, and a limit raised by hand may be far more.
var largeSizes = []int{
	64 << 10, 256<<10 - 1, 256 << 10, 256<<10 + 1, 512 << 10, 1<<20 - 1, 1 << 20, 1<<20 + 1,
	3 << 19, 3<<19 + 512, 2 << 20, 5 << 20, 17 << 20,
}

func largeValues(t *testing.T, d Disk) {
	e := d.Open(t)
	var s engine.Stamp
	for i, n := range largeSizes {
		s++
		mustCommit(t, e, s, engine.Row{Key: fmt.Appendf(nil, "large%02d", i), Value: noise(uint64(i), n), Stamp: s}, row("small", fmt.Sprint(s), s))
	}
	check := func() {
		t.Helper()
		for i, n := range largeSizes {
			got, _, err := e.Get(fmt.Appendf(nil, "large%02d", i), s)
			if err != nil || !bytes.Equal(got, noise(uint64(i), n)) {
				t.Fatalf("value of %d bytes: got %d, %v", n, len(got), err)
			}
		}
		it := e.Iterate(engine.IterOptions{At: s, Lower: []byte("large"), Upper: []byte("largf")})
		defer it.Close()
		for i, n := range largeSizes {
			if !it.Next() || !bytes.Equal(it.Row().Value, noise(uint64(i), n)) {
				t.Fatalf("iterate to the value of %d bytes: %q, %d, %v", n, it.Row().Key, len(it.Row().Value), it.Err())
			}
		}
	}
	check()
	mustSync(t, e)
	mustClose(t, e)
	e = d.Open(t)
	defer mustClose(t, e)
	check()
	// Versions of many sizes at one key do not mix.
	first := s
	for i := len(largeSizes) - 1; i >= 0; i-- {
		s++
		mustCommit(t, e, s, engine.Row{Key: []byte("large00"), Value: noise(s2seed(s), largeSizes[i]), Stamp: s})
	}
	for i := range largeSizes {
		a := first + 1 + engine.Stamp(i)
		got, gotStamp, err := e.Get([]byte("large00"), a)
		if want := noise(s2seed(a), largeSizes[len(largeSizes)-1-i]); err != nil || gotStamp != a || !bytes.Equal(got, want) {
			t.Fatalf("version %d: got %d bytes@%d, %v, want %d", a, len(got), gotStamp, err, len(want))
		}
	}
}

func s2seed(s engine.Stamp) uint64 { return uint64(s) + 1000 }

func largeBatch(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	const n = 50_000
	rows := make([]engine.Row, n)
	for i := range rows {
		rows[i] = engine.Row{Key: fmt.Appendf(nil, "k%06d", i), Value: bytes.Repeat([]byte{byte(i)}, 100), Stamp: engine.Stamp(i%7 + 1)}
	}
	mustCommit(t, e, 7, rows...)
	it := e.Iterate(engine.IterOptions{At: 7})
	defer it.Close()
	for i := range rows {
		if !it.Next() || !bytes.Equal(it.Row().Key, rows[i].Key) || !bytes.Equal(it.Row().Value, rows[i].Value) {
			t.Fatalf("row %d: %q, %v", i, it.Row().Key, it.Err())
		}
	}
	if it.Next() {
		t.Fatalf("one more: %q", it.Row().Key)
	}
}

func purgeLarge(t *testing.T, d Disk) {
	e := d.Open(t)
	defer mustClose(t, e)
	big := noise(1, 2<<20)
	mustCommit(t, e, 1, engine.Row{Key: []byte("a"), Value: big, Stamp: 1})
	mustCommit(t, e, 2, engine.Row{Key: []byte("a"), Value: big[:1<<20], Stamp: 2})
	mustCommit(t, e, 3, row("b", "x", 3))
	mustSync(t, e)
	if err := e.Purge(3, []engine.Version{{Key: []byte("a"), Stamp: 1}}); err != nil {
		t.Fatal(err)
	}
	got, s, err := e.Get([]byte("a"), 3)
	if err != nil || s != 2 || !bytes.Equal(got, big[:1<<20]) {
		t.Fatalf("after a purge of the version before: %d bytes@%d, %v", len(got), s, err)
	}
	if err := e.Purge(3, []engine.Version{{Key: []byte("a"), Stamp: 2}}); err != nil {
		t.Fatal(err)
	}
	wantNone(t, e, "a", 3)
	wantRows(t, e, engine.IterOptions{At: 3}, "b=x@3")
}

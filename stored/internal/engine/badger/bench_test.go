package badger

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

const (
	benchKeys     = 50_000
	benchVersions = 4
	benchBatch    = 128
)

// cpu reports the processor time per operation, Badger's background work in
// it, which holds on a machine that is busy with other things.
func cpu(b *testing.B, per int) func() {
	now := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	runtime.GC()
	start := now()
	return func() { b.ReportMetric(float64(now()-start)/float64(b.N)/float64(per), "cpu-ns/item") }
}

// revisions are the rows of a batch of puts as a store writes them: the key's
// row and the history row of each.
type revisions struct {
	rows  []engine.Row
	value []byte
	stamp engine.Stamp
}

func newRevisions() *revisions { return &revisions{value: make([]byte, 256)} }

func benchKey(i int) []byte { return fmt.Appendf(nil, "k/registry/pods/ns/pod-%08d", i) }

func (r *revisions) batch(key func() int) []engine.Row {
	r.rows = r.rows[:0]
	for range benchBatch {
		r.stamp++
		k := benchKey(key())
		h := binary.BigEndian.AppendUint64([]byte{'h'}, uint64(r.stamp))
		r.rows = append(r.rows, engine.Row{Key: k, Value: r.value, Stamp: r.stamp}, engine.Row{Key: h, Value: k, Stamp: r.stamp})
	}
	return r.rows
}

func benchEngine(b *testing.B) (*Engine, *revisions) {
	b.Helper()
	e, err := Open(b.TempDir(), DefaultConfig(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	r := newRevisions()
	next := 0
	for range benchKeys * benchVersions / benchBatch {
		rows := r.batch(func() int { next++; return next * 7919 % benchKeys })
		if err := e.Commit(position(r.stamp), rows); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	return e, r
}

// BenchmarkCommit: an item is one revision of a batch of 128.
func BenchmarkCommit(b *testing.B) {
	e, r := benchEngine(b)
	done := cpu(b, benchBatch)
	for b.Loop() {
		if err := e.Commit(position(r.stamp+benchBatch), r.batch(func() int { return rand.IntN(benchKeys) })); err != nil {
			b.Fatal(err)
		}
	}
	done()
}

// BenchmarkGet: the latest version of a random key.
func BenchmarkGet(b *testing.B) {
	e, r := benchEngine(b)
	done := cpu(b, 1)
	for b.Loop() {
		if _, _, err := e.Get(benchKey(rand.IntN(benchKeys)), r.stamp); err != nil {
			b.Fatal(err)
		}
	}
	done()
}

// BenchmarkIterate: an item is one key of all, with its value and without.
func BenchmarkIterate(b *testing.B) {
	for _, keysOnly := range []bool{false, true} {
		b.Run(fmt.Sprintf("KeysOnly=%v", keysOnly), func(b *testing.B) {
			e, r := benchEngine(b)
			done := cpu(b, benchKeys)
			for b.Loop() {
				it := e.Iterate(engine.IterOptions{Lower: []byte("k"), Upper: []byte("l"), At: r.stamp, KeysOnly: keysOnly})
				n := 0
				for it.Next() {
					n++
				}
				it.Close()
				if it.Err() != nil || n < benchKeys*9/10 {
					b.Fatalf("%d keys, %v", n, it.Err())
				}
			}
			done()
		})
	}
}

// BenchmarkSync: of 1 MB committed since the last.
func BenchmarkSync(b *testing.B) {
	e, r := benchEngine(b)
	for b.Loop() {
		b.StopTimer()
		for range 1 << 20 / (benchBatch * 400) {
			if err := e.Commit(position(r.stamp+benchBatch), r.batch(func() int { return rand.IntN(benchKeys) })); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		if _, err := e.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReopen: of an engine that was closed.
func BenchmarkReopen(b *testing.B) {
	e, _ := benchEngine(b)
	if _, err := e.Sync(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
		var err error
		if e, err = Open(e.dir, DefaultConfig(), slog.New(slog.DiscardHandler)); err != nil {
			b.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
}

package keyspace

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
)

// cpu reports the processor time of an operation, which holds on a machine that
// is busy with other things. Call what it returns after the loop.
func cpu(b *testing.B) func() {
	now := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	runtime.GC()
	start := now()
	return func() { b.ReportMetric(float64(now()-start)/float64(b.N), "cpu-ns/op") }
}

const benchKeys = 1_000_000

func benchKey(i int) []byte { return fmt.Appendf(nil, "/registry/pods/ns-%03d/pod-%08d", i%997, i) }

// filled is a complete keyspace of benchKeys keys, and its keys.
func filledKeyspace(b *testing.B, valueBytes int) (*Keyspace, [][]byte) {
	b.Helper()
	k := New(Config{BudgetBytes: 4 << 30})
	keys := make([][]byte, benchKeys)
	value := make([]byte, valueBytes)
	for i := range keys {
		keys[i] = benchKey(i)
		w := k.Begin()
		w.Put(Item{Key: keys[i], Value: value, Create: 1, Mod: 1, Version: 1})
		w.Commit(int64(i) + 1)
	}
	k.Filled()
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	b.ReportAllocs()
	return k, keys
}

// BenchmarkPut is what apply asks of an overwrite: the previous item, the new.
func BenchmarkPut(b *testing.B) {
	k, keys := filledKeyspace(b, 0)
	value := make([]byte, 256)
	rev := int64(benchKeys)
	i := 0
	done := cpu(b)
	for b.Loop() {
		key := keys[i%len(keys)]
		i++
		rev++
		w := k.Begin()
		it, _ := w.Get(key)
		it.Value, it.Mod = value, rev
		it.Version++
		w.Put(it)
		w.Commit(rev)
	}
	done()
}

// BenchmarkCreateDelete is a key that comes and goes, at random places.
func BenchmarkCreateDelete(b *testing.B) {
	k, keys := filledKeyspace(b, 0)
	rev := int64(benchKeys)
	i := 0
	done := cpu(b)
	for b.Loop() {
		key := append(keys[i%len(keys)][:len(keys[i%len(keys)]):len(keys[i%len(keys)])], '-')
		i++
		rev++
		w := k.Begin()
		w.Put(Item{Key: key, Create: rev, Mod: rev, Version: 1})
		w.Commit(rev)
		rev++
		w = k.Begin()
		w.Delete(key, rev)
		w.Commit(rev)
	}
	done()
}

func BenchmarkGet(b *testing.B) {
	k, keys := filledKeyspace(b, 0)
	i := 0
	done := cpu(b)
	for b.Loop() {
		k.Get(keys[i%len(keys)])
		i++
	}
	done()
}

func BenchmarkCount(b *testing.B) {
	k, keys := filledKeyspace(b, 0)
	i := 0
	done := cpu(b)
	for b.Loop() {
		k.Count(keys[i%len(keys)], nil, 0)
		i++
	}
	done()
}

// BenchmarkChunk reads 1000 items from a random place.
func BenchmarkChunk(b *testing.B) {
	k, keys := filledKeyspace(b, 0)
	items := make([]Item, 0, ChunkMax)
	i := 0
	done := cpu(b)
	for b.Loop() {
		k.Chunk(keys[i%len(keys)], nil, 0, ChunkMax, items)
		i++
	}
	done()
}

// BenchmarkFill reports the time and the memory of a key.
func BenchmarkFill(b *testing.B) {
	const n = benchKeys
	items := make([]Item, n)
	for i := range items {
		items[i] = Item{Key: fmt.Appendf(nil, "/registry/pods/pod-%08d", i), Create: 1, Mod: 1, Version: 1}
	}
	var before, after runtime.MemStats
	for b.Loop() {
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&before)
		k := New(Config{BudgetBytes: 4 << 30})
		k.Begin().Commit(1)
		b.StartTimer()
		k.Fill(items)
		k.Filled()
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(k)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/key")
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/key")
}

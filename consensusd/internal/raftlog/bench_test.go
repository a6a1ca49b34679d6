package raftlog

import (
	"fmt"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// BenchmarkAppend is one batch per operation, with its sync unless said.
func BenchmarkAppend(b *testing.B) {
	for _, batch := range []int{1, 64} {
		for _, bytes := range []int{256, 4096} {
			for _, sync := range []bool{true, false} {
				b.Run(fmt.Sprintf("entries=%d/bytes=%d/sync=%v", batch, bytes, sync), func(b *testing.B) {
					o := Options{Dir: b.TempDir()}
					if !sync {
						o.FS = unsynced{}
					}
					l := create(b, o)
					data := make([]byte, bytes)
					entries := make([]*raftpb.Entry, batch)
					hs := hard(1, 1, 0)
					b.SetBytes(int64(batch * bytes))
					b.ReportAllocs()
					next := uint64(1)
					for b.Loop() {
						b.StopTimer()
						for i := range entries {
							entries[i] = &raftpb.Entry{Index: new(next), Term: hs.Term, Type: raftpb.EntryNormal.Enum(), Data: data}
							next++
						}
						b.StartTimer()
						if err := l.Append(hs, entries, nil); err != nil {
							b.Fatal(err)
						}
						if next%(1<<16) < uint64(batch) {
							b.StopTimer()
							must(b, l.Truncate(next-1, nil, nil))
							b.StartTimer()
						}
					}
				})
			}
		}
	}
}

// unsynced leaves out the disk, to show what the rest costs.
type unsynced struct{ OS }

func (u unsynced) Open(path string) (File, error) {
	f, err := u.OS.Open(path)
	return noSync{f}, err
}

func (u unsynced) Create(path string) (File, error) {
	f, err := u.OS.Create(path)
	return noSync{f}, err
}

type noSync struct{ File }

func (noSync) Sync() error { return nil }

// BenchmarkEntries reads 64 entries of 256 bytes.
func BenchmarkEntries(b *testing.B) {
	for name, cache := range map[string]int64{"cached": 0, "from file": 1} {
		b.Run(name, func(b *testing.B) {
			l := create(b, Options{Dir: b.TempDir(), CacheBytes: cache})
			const last = 10000
			for i := uint64(1); i < last; i += 100 {
				must(b, l.Append(hard(1, 1, 0), ents(i, i+99, 1), nil))
			}
			b.ReportAllocs()
			lo := uint64(1)
			for b.Loop() {
				if got, err := l.Entries(lo, lo+64, 1<<30); err != nil || len(got) != 64 {
					b.Fatal(len(got), err)
				}
				if lo += 64; lo+64 > last {
					lo = 1
				}
			}
		})
	}
}

// BenchmarkOpen recovers 64 MiB of entries of 256 bytes.
func BenchmarkOpen(b *testing.B) {
	o := Options{Dir: b.TempDir(), FS: unsynced{}}
	l, err := Create(o, nil)
	must(b, err)
	data := make([]byte, 256)
	for next := uint64(1); next < 64<<20/256; {
		batch := make([]*raftpb.Entry, 64)
		for i := range batch {
			batch[i] = &raftpb.Entry{Index: new(next), Term: new(uint64(1)), Type: raftpb.EntryNormal.Enum(), Data: data}
			next++
		}
		must(b, l.Append(hard(1, 1, 0), batch, nil))
	}
	must(b, l.Close())
	for b.Loop() {
		l, err := Open(o)
		must(b, err)
		must(b, l.Close())
	}
}

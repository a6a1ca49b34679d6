package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func ent(index, term uint64, data string) *raftpb.Entry {
	e := &raftpb.Entry{Index: new(index), Term: new(term), Type: raftpb.EntryNormal.Enum()}
	if data != "" {
		e.Data = []byte(data)
	}
	return e
}

func ents(from, to, term uint64) []*raftpb.Entry {
	var out []*raftpb.Entry
	for i := from; i <= to; i++ {
		out = append(out, ent(i, term, fmt.Sprintf("entry %d of term %d", i, term)))
	}
	return out
}

func hard(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
}

func snapAt(index, term uint64, data string) *raftpb.Snapshot {
	return raftpb.EnsureSnapshot(&raftpb.Snapshot{Data: []byte(data), Metadata: &raftpb.SnapshotMetadata{
		Index: new(index), Term: new(term), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}},
	}})
}

// must fails the test on an error that leaves nothing to test.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := Create(o, []byte("meta"))
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func open(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// crash lets go of the files without what Close writes.
func crash(t testing.TB, l *Log) {
	t.Helper()
	l.w.Lock()
	defer l.w.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.err = ErrClosed
	for _, s := range l.mu.index.segments {
		must(t, s.release())
	}
	must(t, l.lock.Close())
}

// content is everything that a log promises to keep.
type content struct {
	meta        string
	hs          *raftpb.HardState
	snap        *raftpb.Snapshot
	first, last uint64
	entries     []*raftpb.Entry
}

func contentOf(t testing.TB, s raft.Storage) content {
	t.Helper()
	var c content
	var err error
	if l, ok := s.(*Log); ok {
		c.meta = string(l.Meta())
	}
	c.hs, _, err = s.InitialState()
	must(t, err)
	c.snap, err = s.Snapshot()
	must(t, err)
	c.first, err = s.FirstIndex()
	must(t, err)
	c.last, err = s.LastIndex()
	must(t, err)
	if c.first <= c.last {
		c.entries, err = s.Entries(c.first, c.last+1, 1<<62)
		must(t, err)
	}
	return c
}

func (c content) diff(o content) string {
	switch {
	case c.meta != o.meta:
		return fmt.Sprintf("meta %q and %q", c.meta, o.meta)
	case !proto.Equal(c.hs, o.hs):
		return fmt.Sprintf("hard state %v and %v", c.hs, o.hs)
	case !proto.Equal(c.snap, o.snap):
		return fmt.Sprintf("snapshot %v and %v", c.snap, o.snap)
	case c.first != o.first || c.last != o.last || len(c.entries) != len(o.entries):
		return fmt.Sprintf("%d…%d (%d) and %d…%d (%d)", c.first, c.last, len(c.entries), o.first, o.last, len(o.entries))
	}
	for i := range c.entries {
		if !proto.Equal(c.entries[i], o.entries[i]) {
			return fmt.Sprintf("entry %v and %v", c.entries[i], o.entries[i])
		}
	}
	return ""
}

func TestReopenKeepsEverything(t *testing.T) {
	o := Options{Dir: t.TempDir(), SegmentBytes: 4096}
	l := create(t, o)
	for i := uint64(1); i < 400; i += 3 {
		must(t, l.Append(hard(1+i/100, 2, i-1), ents(i, i+2, 1+i/100), nil))
	}
	must(t, l.Truncate(123, &raftpb.ConfState{Voters: []uint64{7}}, []byte("members")))
	must(t, l.SetMeta([]byte("other")))
	want := contentOf(t, l)
	if want.first != 124 || want.last != 402-3 || want.meta != "other" || string(want.snap.Data) != "members" {
		t.Fatalf("before: %v", want)
	}
	for _, stop := range []func(){func() { must(t, l.Close()) }, func() { crash(t, l) }} {
		stop()
		l = open(t, o)
		if d := want.diff(contentOf(t, l)); d != "" {
			t.Fatal(d)
		}
	}
}

func TestConflictSupersedesAcrossSegments(t *testing.T) {
	o := Options{Dir: t.TempDir(), SegmentBytes: 4096, CacheBytes: 1}
	l := create(t, o)
	must(t, l.Append(hard(1, 1, 0), ents(1, 200, 1), nil))
	must(t, l.Append(hard(2, 1, 0), ents(201, 300, 2), nil))
	must(t, l.Append(hard(3, 1, 0), ents(50, 60, 3), nil))
	for range 2 {
		got := contentOf(t, l)
		if got.last != 60 || string(got.entries[49].Data) != "entry 50 of term 3" || string(got.entries[48].Data) != "entry 49 of term 1" {
			t.Fatalf("last %d, entries %v", got.last, got.entries)
		}
		for i, want := range map[uint64]uint64{49: 1, 50: 3, 60: 3} {
			if term, err := l.Term(i); err != nil || term != want {
				t.Fatalf("term of %d: %d %v, want %d", i, term, err, want)
			}
		}
		if _, err := l.Term(61); !errors.Is(err, raft.ErrUnavailable) {
			t.Fatalf("term of 61: %v", err)
		}
		crash(t, l)
		l = open(t, o)
	}
}

func TestSnapshotReplacesTheLog(t *testing.T) {
	o := Options{Dir: t.TempDir(), SegmentBytes: 4096}
	l := create(t, o)
	must(t, l.Append(hard(1, 1, 100), ents(1, 100, 1), nil))
	must(t, l.Append(hard(4, 0, 500), ents(501, 503, 4), snapAt(500, 3, "blob")))
	for range 2 {
		got := contentOf(t, l)
		if got.first != 501 || got.last != 503 || string(got.snap.Data) != "blob" || got.hs.GetCommit() != 500 {
			t.Fatalf("got %v", got)
		}
		if term, err := l.Term(500); term != 3 || err != nil {
			t.Fatalf("term of 500: %d %v", term, err)
		}
		crash(t, l)
		l = open(t, o)
	}
}

func TestTruncateRemovesFiles(t *testing.T) {
	o := Options{Dir: t.TempDir(), SegmentBytes: 4096}
	l := create(t, o)
	for i := uint64(1); i <= 500; i++ {
		must(t, l.Append(hard(1, 1, i-1), ents(i, i, 1), nil))
	}
	before := len(segments(t, o))
	must(t, l.Truncate(450, nil, nil))
	after := len(segments(t, o))
	if before < 8 || after > before/3 {
		t.Fatalf("%d segments, then %d", before, after)
	}
	if _, err := l.Entries(450, 452, 1000); !errors.Is(err, raft.ErrCompacted) {
		t.Fatalf("entry 450: %v", err)
	}
	if got, err := l.Entries(451, 501, 1<<40); err != nil || len(got) != 50 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	must(t, l.Close())
	l = open(t, o)
	if first, _ := l.FirstIndex(); first != 451 {
		t.Fatalf("first %d", first)
	}
}

// A reader may be in the middle of a segment that is dropped.
func TestReadersAndTheWriter(t *testing.T) {
	l := create(t, Options{Dir: t.TempDir(), SegmentBytes: 16 << 10, CacheBytes: 4 << 10})
	const last = 3000
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				first, _ := l.FirstIndex()
				end, _ := l.LastIndex()
				if end == last {
					return
				}
				if first > end {
					continue
				}
				got, err := l.Entries(first, end+1, 8<<10)
				if errors.Is(err, raft.ErrCompacted) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				for i, e := range got {
					if want := fmt.Appendf(nil, "entry %d of term 1", first+uint64(i)); !bytes.Equal(e.Data, want) {
						t.Errorf("got %q, want %q", e.Data, want)
						return
					}
				}
			}
		})
	}
	for i := uint64(1); i <= last; i += 10 {
		must(t, l.Append(hard(1, 1, i-1), ents(i, i+9, 1), nil))
		if i%500 == 1 && i > 500 {
			must(t, l.Truncate(i-300, nil, nil))
		}
	}
	wg.Wait()
}

func TestEntriesHonoursItsBounds(t *testing.T) {
	l := create(t, Options{Dir: t.TempDir(), CacheBytes: 10 * (entryOverheadBytes + 20)})
	m := raft.NewMemoryStorage()
	all := ents(1, 50, 1)
	must(t, l.Append(hard(1, 1, 1), all, nil))
	must(t, m.Append(all))
	for lo := uint64(1); lo <= 50; lo++ {
		for hi := lo + 1; hi <= 51; hi++ {
			for _, size := range []uint64{0, 30, 100, 700, 1 << 62} {
				got, err := l.Entries(lo, hi, size)
				must(t, err)
				want, _ := m.Entries(lo, hi, size)
				if len(got) != len(want) || got[0].GetIndex() != lo {
					t.Fatalf("[%d,%d) %d bytes: %d entries, want %d", lo, hi, size, len(got), len(want))
				}
			}
		}
	}
}

func TestOneProcessHasTheLog(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	create(t, o)
	if _, err := Open(o); err == nil {
		t.Fatal("opened twice")
	}
}

func TestCreateAndOpenSayWhatIsThere(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	if _, err := Open(o); !errors.Is(err, ErrNotExist) {
		t.Fatal(err)
	}
	l := create(t, o)
	must(t, l.Close())
	if _, err := Create(o, nil); !errors.Is(err, ErrExist) {
		t.Fatal(err)
	}
	if ok, err := Exists(o); !ok || err != nil {
		t.Fatal(ok, err)
	}
}

func TestTailStart(t *testing.T) {
	l := create(t, Options{Dir: t.TempDir(), SegmentBytes: 4096})
	if got := l.TailStart(100); got != 1 {
		t.Fatalf("empty: %d", got)
	}
	must(t, l.Append(hard(1, 1, 1), ents(1, 400, 1), nil))
	must(t, l.Truncate(10, nil, nil))
	one := int64(len("entry 400 of term 1") + entryFixed)
	for max, want := range map[int64]uint64{0: 401, one - 1: 401, one: 400, 5*one + 3: 396, 1 << 40: 11} {
		if got := l.TailStart(max); got != want {
			t.Errorf("%d bytes: %d, want %d", max, got, want)
		}
	}
}

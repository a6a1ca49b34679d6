package raftlog

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// machine drives a log on a disk that loses power, beside what it must hold.
type machine struct {
	t *rapid.T
	d *disk
	o Options
	l *Log

	now content
	// may are the contents that a power cut may leave: as of the last sync, and
	// after each batch that was not synced since.
	may []content
}

func TestPowerCutsKeepWhatWasAcknowledged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDisk()
		m := &machine{t: t, d: d, o: Options{Dir: "d", FS: d, SegmentBytes: 4096, CacheBytes: rapid.SampledFrom([]int64{1, 2000, 1 << 20}).Draw(t, "cache")}}
		l, err := Create(m.o, []byte("m"))
		if err != nil {
			t.Fatal(err)
		}
		m.l, m.now = l, contentOfRapid(t, l)
		m.may = []content{m.now}
		t.Repeat(map[string]func(*rapid.T){
			"append":   m.append,
			"append2":  m.append,
			"commit":   m.commit,
			"snapshot": m.snapshot,
			"truncate": m.truncate,
			"meta":     m.meta,
			"reopen":   m.reopen,
			"cut":      func(t *rapid.T) { m.cut(t, 0) },
			"":         m.compare,
		})
		_ = m.l.Close()
	})
}

// step runs one write, maybe with the power failing in the middle of it.
func (m *machine) step(t *rapid.T, next content, synced bool, write func() error) {
	if n := rapid.IntRange(-12, 6).Draw(t, "fails after"); n >= 0 {
		m.d.fail = func(string, string) error {
			if n--; n < 0 {
				return syscall.EIO
			}
			return nil
		}
	}
	err := write()
	if err != nil {
		m.may = append(m.may, next)
		m.cut(t, 1)
		return
	}
	m.d.fail = nil
	if m.now = next; synced {
		m.may = nil
	}
	m.may = append(m.may, next)
}

func (m *machine) append(t *rapid.T) {
	next := m.now
	from := next.last + 1 - min(uint64(rapid.IntRange(0, 3).Draw(t, "conflict")), next.last+1-next.first)
	term := next.hs.GetTerm() + uint64(rapid.IntRange(0, 1).Draw(t, "term"))
	if from <= next.last {
		term = next.hs.GetTerm() + 1
	}
	term = max(term, 1)
	var batch []*raftpb.Entry
	for i := range uint64(rapid.IntRange(1, 5).Draw(t, "entries")) {
		batch = append(batch, ent(from+i, term, string(bytes.Repeat([]byte{byte(from + i)}, rapid.SampledFrom([]int{0, 1, 50, 300, 3000}).Draw(t, "bytes")))))
	}
	next.entries = append(slices.Clone(next.entries[:from-next.first]), batch...)
	next.last = from + uint64(len(batch)) - 1
	next.hs = hard(term, 1, min(next.hs.GetCommit(), from-1))
	m.step(t, next, true, func() error { return m.l.Append(next.hs, batch, nil) })
}

func (m *machine) commit(t *rapid.T) {
	next := m.now
	if next.hs == nil || next.hs.GetCommit() >= next.last {
		t.Skip("nothing to commit")
	}
	next.hs = hard(next.hs.GetTerm(), next.hs.GetVote(), rapid.Uint64Range(next.hs.GetCommit(), next.last).Draw(t, "commit"))
	m.step(t, next, false, func() error { return m.l.Append(next.hs, nil, nil) })
}

func (m *machine) snapshot(t *rapid.T) {
	next := m.now
	term := max(next.hs.GetTerm(), 1)
	next.last += uint64(rapid.IntRange(1, 100).Draw(t, "beyond"))
	next.first, next.entries = next.last+1, nil
	next.snap = snapAt(next.last, term, "members")
	next.hs = hard(term, 1, next.last)
	m.step(t, next, true, func() error { return m.l.Append(next.hs, nil, next.snap) })
}

func (m *machine) truncate(t *rapid.T) {
	next := m.now
	if next.first > next.last {
		t.Skip("empty")
	}
	index := rapid.Uint64Range(next.first, next.last).Draw(t, "index")
	term, err := m.l.Term(index)
	if err != nil {
		t.Fatal(err)
	}
	next.snap = snapAt(index, term, "rest")
	next.entries = slices.Clone(next.entries[index+1-next.first:])
	next.first = index + 1
	m.step(t, next, true, func() error { return m.l.Truncate(index, next.snap.Metadata.ConfState, next.snap.Data) })
}

func (m *machine) meta(t *rapid.T) {
	next := m.now
	next.meta = rapid.StringN(0, 20, 20).Draw(t, "meta")
	m.step(t, next, true, func() error { return m.l.SetMeta([]byte(next.meta)) })
}

func (m *machine) reopen(t *rapid.T) {
	if err := m.l.Close(); err != nil {
		t.Fatal(err)
	}
	m.open(t)
	m.compare(t)
	m.may = []content{m.now}
}

func (m *machine) open(t *rapid.T) {
	l, err := Open(m.o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	m.l = l
}

// cut: extra is how many of m.may were never acknowledged, whatever is there.
func (m *machine) cut(t *rapid.T, extra int) {
	m.d.cut(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)))
	m.open(t)
	got := contentOfRapid(t, m.l)
	for _, c := range m.may {
		if normal(c).diff(got) == "" {
			m.now, m.may = got, []content{got}
			return
		}
	}
	for _, c := range m.may {
		t.Logf("not %s", normal(c).diff(got))
	}
	t.Fatalf("recovered what was never there (%d allowed, the last %d never acknowledged)", len(m.may), extra)
}

func (m *machine) compare(t *rapid.T) {
	if d := normal(m.now).diff(normal(contentOfRapid(t, m.l))); d != "" {
		t.Fatal(d)
	}
	for i := m.now.first; i <= m.now.last; i++ {
		if term, err := m.l.Term(i); err != nil || term != m.now.entries[i-m.now.first].GetTerm() {
			t.Fatalf("term of %d: %d %v", i, term, err)
		}
	}
}

// normal raises the commit index to the snapshot's, as recovery does.
func normal(c content) content {
	if c.hs != nil {
		c.hs = proto.CloneOf(c.hs)
		c.hs.Commit = new(max(c.hs.GetCommit(), c.first-1))
	}
	return c
}

func contentOfRapid(t *rapid.T, l *Log) content {
	c := content{meta: string(l.Meta())}
	c.hs, _, _ = l.InitialState()
	c.snap, _ = l.Snapshot()
	c.first, _ = l.FirstIndex()
	c.last, _ = l.LastIndex()
	if c.first <= c.last {
		var err error
		if c.entries, err = l.Entries(c.first, c.last+1, 1<<62); err != nil {
			t.Fatalf("entries: %v", err)
		}
	}
	return c
}

package raftlog

import (
	"fmt"
	"sort"

	"go.etcd.io/raft/v3/raftpb"
)

// slot is where an entry's record lies in its segment, and its data's length:
// 8 bytes of memory per kept entry.
type slot struct {
	off  uint32
	data uint32
}

// end is the offset after the record.
func (s slot) end() int64 {
	return int64(s.off) + int64(padded(headerBytes+entryFixed+int(s.data)))
}

// run is a range of entries of one term, up to the next run.
type run struct{ first, term uint64 }

// index is the log's table of contents: which entries are live, where each
// lies, and in which term. It does no I/O.
//
// Invariants:
//
//  1. segments are in order of seq; the last one is written to.
//  2. segment.first never decreases from one segment to the next, so the entry
//     i lies in the last segment with first ≤ i.
//  3. live entries are base+1 … last, without a gap.
type index struct {
	segments []*segment
	runs     []run

	base, baseTerm uint64 // the snapshot's index and term
	last           uint64
}

func (x *index) active() *segment { return x.segments[len(x.segments)-1] }

// push makes s the segment that is written to.
func (x *index) push(s *segment) {
	s.first = x.last + 1
	x.segments = append(x.segments, s)
}

// check tells why an entry cannot be added.
func (x *index) check(i, term uint64) error {
	switch {
	case i <= x.base:
		return fmt.Errorf("entry %d at or below the snapshot at %d", i, x.base)
	case i > x.last+1:
		return fmt.Errorf("entry %d after %d", i, x.last)
	}
	if prev := x.term(i - 1); prev > term {
		return fmt.Errorf("entry %d of term %d after one of term %d", i, term, prev)
	}
	return nil
}

// add makes i the last entry; one that was at i or beyond is superseded.
func (x *index) add(i, term uint64, s slot) {
	if i <= x.last {
		x.cut(i)
	}
	a := x.active()
	a.slots = append(a.slots, s)
	if n := len(x.runs); n == 0 || x.runs[n-1].term != term {
		x.runs = append(x.runs, run{i, term})
	}
	x.last = i
}

// cut forgets the entries from i on.
func (x *index) cut(i uint64) {
	for k := len(x.segments) - 1; k >= 0; k-- {
		s := x.segments[k]
		if s.first < i {
			s.slots = s.slots[:min(i-s.first, uint64(len(s.slots)))]
			break
		}
		s.first, s.slots = i, s.slots[:0]
	}
	for n := len(x.runs); n > 0 && x.runs[n-1].first >= i; n-- {
		x.runs = x.runs[:n-1]
	}
	x.last = i - 1
}

// reset forgets every entry: the log continues after a snapshot.
func (x *index) reset(base, term uint64) {
	for _, s := range x.segments {
		s.first, s.slots = base+1, nil
	}
	x.runs = nil
	x.base, x.baseTerm, x.last = base, term, base
}

// forget moves the snapshot up to base and returns the segments that hold no
// live entry any more.
func (x *index) forget(base, term uint64) []*segment {
	x.base, x.baseTerm = base, term
	n := 0
	for n < len(x.segments)-1 && x.segments[n].next() <= base+1 {
		n++
	}
	dropped := x.segments[:n:n]
	x.segments = append([]*segment(nil), x.segments[n:]...)
	k := sort.Search(len(x.runs), func(k int) bool { return x.runs[k].first > base+1 })
	if k > 1 {
		x.runs = append([]run(nil), x.runs[k-1:]...)
	}
	return dropped
}

// term of entry i; 0 when it is not known.
func (x *index) term(i uint64) uint64 {
	if i == x.base {
		return x.baseTerm
	}
	k := sort.Search(len(x.runs), func(k int) bool { return x.runs[k].first > i })
	if k == 0 || i > x.last {
		return 0
	}
	return x.runs[k-1].term
}

// find returns where entry i, which is live, lies.
func (x *index) find(i uint64) (*segment, int) {
	k := sort.Search(len(x.segments), func(k int) bool { return x.segments[k].first > i })
	s := x.segments[k-1]
	return s, int(i - s.first)
}

// cache holds the last entries, within a budget.
type cache struct {
	entries []*raftpb.Entry
	bytes   int64
	max     int64
}

func cost(e *raftpb.Entry) int64 { return int64(len(e.Data)) + entryOverheadBytes }

// first index held; 0 when empty.
func (c *cache) first() uint64 {
	if len(c.entries) == 0 {
		return 0
	}
	return c.entries[0].GetIndex()
}

// add puts entries behind the last, in place of any at their indexes.
func (c *cache) add(entries []*raftpb.Entry) {
	c.cut(entries[0].GetIndex())
	for _, e := range entries {
		c.entries = append(c.entries, e)
		c.bytes += cost(e)
	}
	n := 0
	for ; n < len(c.entries) && c.bytes > c.max; n++ {
		c.bytes -= cost(c.entries[n])
	}
	c.drop(n)
}

func (c *cache) cut(i uint64) {
	for n := len(c.entries); n > 0 && c.entries[n-1].GetIndex() >= i; n-- {
		c.bytes -= cost(c.entries[n-1])
		c.entries[n-1] = nil
		c.entries = c.entries[:n-1]
	}
}

// forget drops entries up to base.
func (c *cache) forget(base uint64) {
	n := 0
	for ; n < len(c.entries) && c.entries[n].GetIndex() <= base; n++ {
		c.bytes -= cost(c.entries[n])
	}
	c.drop(n)
}

// drop lets go of the first n, whose cost is already subtracted.
func (c *cache) drop(n int) {
	clear(c.entries[:n])
	c.entries = c.entries[n:]
}

package raftlog

import (
	"errors"
	"math/bits"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// InitialState implements raft.Storage: the last hard state, nil when there is
// none, and the conf state as of the snapshot.
func (l *Log) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	conf := raftpb.EnsureConfState(proto.CloneOf(l.mu.snap.GetMetadata().GetConfState()))
	return l.mu.hs.proto(), conf, nil
}

// FirstIndex implements raft.Storage: the index after the snapshot's.
func (l *Log) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.mu.index.base + 1, nil
}

// LastIndex implements raft.Storage.
func (l *Log) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.mu.index.last, nil
}

// Term implements raft.Storage.
func (l *Log) Term(i uint64) (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	switch x := &l.mu.index; {
	case i < x.base:
		return 0, raft.ErrCompacted
	case i > x.last:
		return 0, raft.ErrUnavailable
	default:
		return x.term(i), nil
	}
}

// Snapshot implements raft.Storage: what Truncate or ApplySnapshot said last,
// a few hundred bytes.
func (l *Log) Snapshot() (*raftpb.Snapshot, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return raftpb.EnsureSnapshot(proto.CloneOf(l.mu.snap)), nil
}

// Bytes is what the kept segments hold, without what is only preallocated.
func (l *Log) Bytes() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var sum int64
	for _, s := range l.mu.index.segments {
		if n := len(s.slots); n > 0 {
			sum += s.slots[n-1].end()
		}
	}
	return sum
}

// TailStart is the lowest kept index such that the data of the entries from
// there on is at most max bytes: where to truncate below when a tail of max
// bytes is to stay. It looks at every entry of that tail.
func (l *Log) TailStart(max int64) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	x := &l.mu.index
	i := x.last + 1
	for k := len(x.segments) - 1; k >= 0; k-- {
		s := x.segments[k]
		for n := len(s.slots) - 1; n >= 0 && i > x.base+1; n-- {
			if max -= int64(s.slots[n].data) + entryFixed; max < 0 {
				return i
			}
			i--
		}
	}
	return i
}

// span is a stretch of one segment that is read at once.
type span struct {
	segment  *segment
	from, to int64
	first    uint64 // index of slots[0]
	slots    []slot
}

// Entries implements raft.Storage: entries from lo to below hi, at least one,
// at most maxSize bytes otherwise. Recent ones come from memory, the others
// are read and checked.
func (l *Log) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	spans, cached, err := l.plan(lo, hi, maxSize)
	defer func() {
		for _, s := range spans {
			// Closing a file that was only read from loses nothing.
			_ = s.segment.release()
		}
	}()
	if err != nil || len(spans) == 0 {
		return cached, err
	}
	var out []*raftpb.Entry
	for _, s := range spans {
		if out, err = s.read(out); err != nil {
			return nil, l.fail("read", s.segment.path, err)
		}
	}
	return append(out, cached...), nil
}

// plan decides, in one moment, what to read and what to take from the cache.
func (l *Log) plan(lo, hi, maxSize uint64) (spans []span, cached []*raftpb.Entry, err error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	x := &l.mu.index
	switch {
	case errors.Is(l.mu.err, ErrClosed):
		return nil, nil, ErrClosed
	case lo <= x.base:
		return nil, nil, raft.ErrCompacted
	case hi > x.last+1 || lo >= hi:
		return nil, nil, raft.ErrUnavailable
	}
	var size uint64
	i := lo
	if first := l.mu.cache.first(); first == 0 || lo < first {
		stop := hi
		if first != 0 {
			stop = min(hi, first)
		}
		if spans, i, size = x.spans(lo, stop, maxSize); i < stop {
			return spans, nil, nil
		}
	}
	if i == hi {
		return spans, nil, nil
	}
	held := l.mu.cache.entries[i-l.mu.cache.first():][:hi-i]
	n := 0
	for ; n < len(held); n++ {
		size += encodedSize(held[n].GetIndex(), held[n].GetTerm(), len(held[n].Data))
		if size > maxSize && i+uint64(n) > lo {
			break
		}
	}
	return spans, append([]*raftpb.Entry(nil), held[:n]...), nil
}

// spans covers the entries from lo to below hi within maxSize, at least one;
// it returns the index that it reached and the size so far. The segments are
// acquired.
func (x *index) spans(lo, hi, maxSize uint64) (out []span, next, size uint64) {
	for i := lo; i < hi; {
		s, n := x.find(i)
		sp := span{segment: s, from: int64(s.slots[n].off), first: i}
		sp.to = sp.from
		for k := n; k < len(s.slots) && i < hi; k++ {
			sl := s.slots[k]
			if int64(sl.off) > sp.to+readGapBytes {
				break
			}
			size += encodedSize(i, x.term(i), int(sl.data))
			if size > maxSize && i > lo {
				return appendSpan(out, sp), i, size
			}
			sp.to, sp.slots = sl.end(), append(sp.slots, sl)
			i++
		}
		out = appendSpan(out, sp)
		next = i
	}
	return out, next, size
}

func appendSpan(out []span, sp span) []span {
	if len(sp.slots) == 0 {
		return out
	}
	sp.segment.acquire()
	return append(out, sp)
}

// encodedSize is proto.Size of an entry.
func encodedSize(index, term uint64, data int) uint64 {
	size := 2 + 1 + varint(index) + 1 + varint(term)
	if data > 0 {
		size += 1 + varint(uint64(data)) + data
	}
	return uint64(size)
}

func varint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// stored is an entry with the values that its fields point to.
type stored struct {
	entry       raftpb.Entry
	index, term uint64
	typ         raftpb.EntryType
}

// read appends the span's entries, whose data share one buffer.
func (s span) read(out []*raftpb.Entry) ([]*raftpb.Entry, error) {
	buf := make([]byte, s.to-s.from)
	if _, err := s.segment.file.ReadAt(buf, s.from); err != nil {
		return nil, err
	}
	block := make([]stored, len(s.slots))
	for i, sl := range s.slots {
		off := int64(sl.off)
		r, ok := parse(buf[off-s.from:], s.segment.seq, off)
		if !ok {
			return nil, damaged(s.segment.path, off, "the record of entry %d does not match its checksum", s.first+uint64(i))
		}
		head, data, err := r.entry()
		if err != nil || head.index != s.first+uint64(i) {
			return nil, damaged(s.segment.path, off, "entry %d where %d was written (%v)", head.index, s.first+uint64(i), err)
		}
		b := &block[i]
		b.index, b.term, b.typ = head.index, head.term, head.typ
		b.entry.Index, b.entry.Term, b.entry.Type, b.entry.Data = &b.index, &b.term, &b.typ, data
		out = append(out, &b.entry)
	}
	return out, nil
}

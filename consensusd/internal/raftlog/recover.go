package raftlog

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const readBufferBytes = 256 << 10

// recovery reads the segments in order and rebuilds the index.
type recovery struct {
	l     *Log
	batch []pending // records of a batch whose end was not seen yet
	stale []*segment

	torn int64 // bytes cut from the tail
}

// pending is a record of an unfinished batch.
type pending struct {
	record
	off  int64
	head entryHead
	slot slot
}

// recover is the whole of Open:
//
//	take the last unbroken run of segments → apply each record of each whole
//	batch → cut the torn tail, or refuse → check the whole → sync → drop files
//	that are no longer needed
//
// It changes nothing on disk before it has found the log sound.
func (l *Log) recover(names []string) (err error) {
	seqs, tmps := sortNames(names)
	run := lastRun(seqs)
	r := &recovery{l: l}
	defer func() {
		if err != nil {
			for _, s := range append(r.stale, l.mu.index.segments...) {
				err = errors.Join(err, s.release())
			}
		}
	}()
	var sealed bool
	var end int64
	for k, seq := range run {
		s, err := l.openSegment(segmentName(seq), seq)
		if err != nil {
			return err
		}
		if end, sealed, err = r.segment(s, k == len(run)-1); err != nil {
			return err
		}
	}
	if sealed {
		if end, err = r.successor(tmps); err != nil {
			return err
		}
	}
	if err := r.check(end); err != nil {
		return err
	}
	if sealed {
		if err := l.reveal(l.mu.index.active()); err != nil {
			return fmt.Errorf("raftlog: finish rotation in %s: %w", l.o.Dir, err)
		}
	}
	if err := r.settle(end); err != nil {
		return err
	}
	return r.sweep(seqs, run, tmps)
}

func sortNames(names []string) (seqs, tmps []uint64) {
	for _, name := range names {
		seq, tmp, ok := segmentSeq(name)
		switch {
		case !ok:
		case tmp:
			tmps = append(tmps, seq)
		default:
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	return seqs, tmps
}

// lastRun is the longest tail of seqs without a gap. What lies before a gap
// was being removed, or check finds that entries are missing.
func lastRun(seqs []uint64) []uint64 {
	k := len(seqs) - 1
	for k > 0 && seqs[k-1]+1 == seqs[k] {
		k--
	}
	return seqs[k:]
}

func (l *Log) openSegment(name string, seq uint64) (*segment, error) {
	path := filepath.Join(l.o.Dir, name)
	f, err := l.o.FS.Open(path)
	if err != nil {
		return nil, fmt.Errorf("raftlog: open segment: %w", err)
	}
	s := newSegment(l.o.Dir, seq, f)
	s.path = path
	return s, nil
}

// segment applies one segment and returns the end of its last whole batch.
func (r *recovery) segment(s *segment, last bool) (end int64, sealed bool, err error) {
	x := &r.l.mu.index
	first := len(x.segments) == 0
	x.push(s)
	size, err := s.file.Size()
	if err != nil {
		return 0, false, fmt.Errorf("raftlog: %s: %w", s.path, err)
	}
	rd := bufio.NewReaderSize(io.NewSectionReader(s.file, 0, size), int(min(size, readBufferBytes)))
	off := int64(0)
	var buf []byte
	for !sealed {
		var rec record
		var ok bool
		if rec, buf, ok, err = readRecord(rd, buf, s.seq, off, size); err != nil {
			return 0, false, fmt.Errorf("raftlog: read %s: %w", s.path, err)
		}
		if !ok {
			break
		}
		if err := r.hold(rec, off); err != nil {
			return 0, false, damaged(s.path, off, "%v", err)
		}
		off += int64(rec.size)
		if rec.end {
			sealed = rec.typ == recordSeal
			if err := r.apply(s, first && end == 0); err != nil {
				return 0, false, err
			}
			end = off
			if s.headerEnd == 0 {
				s.headerEnd = end
			}
		}
	}
	r.batch = r.batch[:0]
	if sealed {
		return end, true, nil
	}
	return end, false, r.judge(s, end, off, size, last)
}

// readRecord reads the record at off; ok is false when there is no valid one.
func readRecord(rd *bufio.Reader, buf []byte, seq uint64, off, size int64) (record, []byte, bool, error) {
	head, err := rd.Peek(headerBytes)
	if err != nil {
		return record{}, buf, false, notEOF(err)
	}
	n := recordSize(head)
	if n == 0 || int64(n) > size-off {
		return record{}, buf, false, nil
	}
	buf = slices.Grow(buf[:0], n)[:n]
	if _, err := io.ReadFull(rd, buf); err != nil {
		return record{}, buf, false, notEOF(err)
	}
	rec, ok := parse(buf, seq, off)
	return rec, buf, ok, nil
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// hold keeps a record until its batch is whole.
func (r *recovery) hold(rec record, off int64) error {
	p := pending{record: rec, off: off}
	if rec.typ == recordEntry {
		head, data, err := rec.entry()
		if err != nil {
			return err
		}
		p.head, p.slot, p.payload = head, slot{off: uint32(off), data: uint32(len(data))}, nil
	} else {
		p.payload = bytes.Clone(rec.payload)
	}
	r.batch = append(r.batch, p)
	return nil
}

// judge decides what the end of the valid records in s means: nothing, a torn
// write, or damage. A write is torn only if it was never durable, and every
// record says up to where the segment was durable when it was written: damage
// is what lies before that mark of any valid record behind it.
func (r *recovery) judge(s *segment, end, off, size int64, last bool) error {
	if end == 0 || !last {
		return damaged(s.path, off, "no valid record where the segment must go on")
	}
	if off >= size {
		r.torn = max(r.torn, off-end)
		return nil
	}
	return r.scan(s, end, off, size)
}

// scan looks for valid records, and for anything but zeros, from end on.
func (r *recovery) scan(s *segment, end, off, size int64) error {
	buf := make([]byte, min(readBufferBytes, size-end))
	for at := end; at < size; at += readBufferBytes {
		chunk := buf[:min(readBufferBytes, size-at)]
		if n, err := s.file.ReadAt(chunk, at); err != nil && !(errors.Is(err, io.EOF) && n == len(chunk)) {
			return fmt.Errorf("raftlog: read %s: %w", s.path, err)
		}
		if n := len(bytes.TrimRight(chunk, "\x00")); n > 0 {
			r.torn = at + int64(n) - end
		}
		// A record's magic is in its second eight bytes.
		for i := 0; i+alignment <= len(chunk); i += alignment {
			start := at + int64(i) - alignment
			if binary.LittleEndian.Uint16(chunk[i:]) != magic || start < end {
				continue
			}
			rec, ok, err := s.recordAt(start, size)
			if err != nil {
				return err
			}
			if ok && rec.synced > end {
				return damaged(s.path, off, "the record is not valid, though the segment was durable up to offset %d (says the record at %d)", rec.synced, start)
			}
		}
	}
	return nil
}

// recordAt reads what may be a record in a file of this size.
func (s *segment) recordAt(off, size int64) (record, bool, error) {
	rd := bufio.NewReaderSize(io.NewSectionReader(s.file, off, size-off), headerBytes)
	rec, _, ok, err := readRecord(rd, nil, s.seq, off, size)
	if err != nil {
		return record{}, false, fmt.Errorf("raftlog: read %s: %w", s.path, err)
	}
	return rec, ok, nil
}

// apply applies a whole batch.
func (r *recovery) apply(s *segment, first bool) error {
	for i := range r.batch {
		p := &r.batch[i]
		if err := r.record(s, p, first); err != nil {
			return damaged(s.path, p.off, "%v", err)
		}
	}
	r.batch = r.batch[:0]
	return nil
}

func (r *recovery) record(s *segment, p *pending, first bool) (err error) {
	m := &r.l.mu
	if (p.typ == recordSegment) != (p.off == 0) {
		return errors.New("a segment's header and its beginning do not coincide")
	}
	switch p.typ {
	case recordSegment:
		return r.header(s, p, first)
	case recordMeta:
		m.meta = p.payload
	case recordHardState:
		m.hs, err = p.hardState()
	case recordSnapshot:
		return r.snapshot(p, first)
	case recordReset:
		return r.reset(p)
	case recordEntry:
		if err := m.index.check(p.head.index, p.head.term); err != nil {
			return err
		}
		m.index.add(p.head.index, p.head.term, p.slot)
	case recordSeal:
		if len(p.payload) != 8 || binary.LittleEndian.Uint64(p.payload) != s.seq+1 {
			return errors.New("the seal names another segment than the next")
		}
	}
	return err
}

func (r *recovery) header(s *segment, p *pending, first bool) error {
	seq, last, lastTerm, err := p.segment()
	if err != nil {
		return err
	}
	x := &r.l.mu.index
	if seq != s.seq {
		return fmt.Errorf("the file holds segment %x", seq)
	}
	if first {
		x.last, s.first = last, last+1
		if last > 0 {
			x.runs = append(x.runs, run{last, lastTerm})
		}
	}
	if x.last != last || x.term(last) != lastTerm {
		return fmt.Errorf("the segment continues entry %d of term %d, the one before it ends with %d of term %d", last, lastTerm, x.last, x.term(x.last))
	}
	return nil
}

func (r *recovery) snapshot(p *pending, first bool) error {
	snap, index, term, err := decodeSnapshot(p.payload)
	if err != nil {
		return err
	}
	x := &r.l.mu.index
	if index < x.base || index > x.last {
		return fmt.Errorf("snapshot at %d, outside the entries %d to %d", index, x.base, x.last)
	}
	if known := x.term(index); !first && known != 0 && known != term {
		return fmt.Errorf("snapshot at %d of term %d, the entry is of term %d", index, term, known)
	}
	r.l.mu.snap = snap
	r.stale = append(r.stale, x.forget(index, term)...)
	return nil
}

func (r *recovery) reset(p *pending) error {
	snap, index, term, err := decodeSnapshot(p.payload)
	if err != nil {
		return err
	}
	r.l.mu.snap = snap
	r.l.mu.index.reset(index, term)
	r.stale = append(r.stale, r.l.mu.index.forget(index, term)...)
	return nil
}

func decodeSnapshot(b []byte) (snap *raftpb.Snapshot, index, term uint64, err error) {
	snap = &raftpb.Snapshot{}
	if err := proto.Unmarshal(b, snap); err != nil {
		return nil, 0, 0, fmt.Errorf("snapshot: %w", err)
	}
	return snap, snap.GetMetadata().GetIndex(), snap.GetMetadata().GetTerm(), nil
}

// check holds what must be true of the log as a whole.
func (r *recovery) check(end int64) error {
	m := &r.l.mu
	x := &m.index
	if s := x.segments[0]; s.first > x.base+1 {
		return damaged(s.path, 0, "entries %d to %d are missing, and with them the segments before this one", x.base+1, s.first-1)
	}
	if m.hs.commit > x.last {
		return damaged(x.active().path, end, "entry %d was committed and the log ends with %d", m.hs.commit, x.last)
	}
	// The commit index is not always synced; the snapshot's is.
	if m.hs != (hardState{}) {
		m.hs.commit = max(m.hs.commit, x.base)
	}
	return nil
}

// successor reads the segment that a crash after sealing the last one left
// under its temporary name.
func (r *recovery) successor(tmps []uint64) (end int64, err error) {
	sealed := r.l.mu.index.active()
	next := sealed.seq + 1
	if !slices.Contains(tmps, next) {
		return 0, damaged(sealed.path, sealed.headerEnd, "the segment is sealed and the next one, %s, is missing", segmentName(next))
	}
	s, err := r.l.openSegment(segmentName(next)+tmpSuffix, next)
	if err != nil {
		return 0, err
	}
	end, _, err = r.segment(s, true)
	s.path = filepath.Join(r.l.o.Dir, segmentName(next))
	return end, err
}

// settle makes the active segment ready to be written to: nothing but zeros
// behind the last whole batch, and all before it durable.
func (r *recovery) settle(end int64) error {
	s := r.l.mu.index.active()
	size, err := s.file.Size()
	if err == nil && r.torn > 0 {
		r.l.o.Log.Info("torn write cut off", "file", s.path, "offset", end, "bytes", r.torn)
		err = s.file.Truncate(end)
		size = end
	}
	if err == nil && size < r.l.o.SegmentBytes {
		err = s.file.Allocate(r.l.o.SegmentBytes)
	}
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("raftlog: settle %s: %w", s.path, err)
	}
	r.l.w.pos, r.l.w.synced = end, end
	return nil
}

// sweep removes files that the log no longer needs.
func (r *recovery) sweep(seqs, run, tmps []uint64) error {
	r.l.remove(r.stale)
	r.stale = nil
	names := make([]string, 0, len(tmps))
	for _, seq := range seqs[:len(seqs)-len(run)] {
		names = append(names, segmentName(seq))
	}
	for _, seq := range tmps {
		if seq != r.l.mu.index.active().seq {
			names = append(names, segmentName(seq)+tmpSuffix)
		}
	}
	for _, name := range names {
		if err := r.l.o.FS.Remove(filepath.Join(r.l.o.Dir, name)); err != nil {
			return fmt.Errorf("raftlog: remove left-over: %w", err)
		}
	}
	x := &r.l.mu.index
	r.l.o.Log.Info("log recovered", "first", x.base+1, "last", x.last, "term", x.term(x.last), "segments", len(x.segments))
	return nil
}

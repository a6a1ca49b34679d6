package raftlog

import (
	"errors"
)

// maybeRotate makes room for a batch: in the active segment, or in a new one.
//
// The order lets recovery tell a crash from a lost file: the next segment is
// complete and durable under another name before this one is sealed, and is
// renamed only when the seal is durable. So a sealed segment without a
// successor under either name has lost it.
func (l *Log) maybeRotate(size int64) error {
	if l.w.pos+size+headerBytes+alignment <= l.o.SegmentBytes || !l.hasBatches() {
		return nil
	}
	old := l.active()
	next, pos, err := l.writeAside(old.seq + 1)
	if err != nil {
		return l.fail("rotate after", old.path, err)
	}
	if err := l.seal(old, next.seq); err != nil {
		return errors.Join(err, next.file.Close())
	}
	if err := l.reveal(next); err != nil {
		return errors.Join(l.fail("rotate to", next.path, err), next.file.Close())
	}
	l.adopt(next, pos)
	return nil
}

// hasBatches tells whether the active segment holds more than its header; a
// batch larger than a segment goes into an empty one.
func (l *Log) hasBatches() bool { return l.w.pos > l.headerEnd() }

func (l *Log) headerEnd() int64 { return l.active().headerEnd }

func (l *Log) seal(s *segment, next uint64) error {
	l.start().seal(next)
	if err := l.write(false); err != nil {
		return err
	}
	// Give back what was preallocated and not used.
	if err := s.file.Truncate(l.w.pos); err != nil {
		return l.fail("trim", s.path, err)
	}
	if err := s.file.Sync(); err != nil {
		return l.fail("sync", s.path, err)
	}
	return nil
}

// writeAside makes a segment under its temporary name: preallocated, durable,
// and beginning with all that a log must know besides its entries.
func (l *Log) writeAside(seq uint64) (*segment, int64, error) {
	s := newSegment(l.o.Dir, seq, nil)
	b, err := l.encodeHeader(seq)
	if err != nil {
		return nil, 0, err
	}
	if s.file, err = l.o.FS.Create(s.path + tmpSuffix); err != nil {
		return nil, 0, err
	}
	if err = s.file.Allocate(l.o.SegmentBytes); err == nil {
		_, err = s.file.WriteAt(b, 0)
	}
	if err == nil {
		err = s.file.Sync()
	}
	if err == nil {
		err = l.o.FS.SyncDir(l.o.Dir) // a file without a name is no successor
	}
	if err != nil {
		return nil, 0, errors.Join(err, s.file.Close())
	}
	s.headerEnd = int64(len(b))
	return s, s.headerEnd, nil
}

func (l *Log) encodeHeader(seq uint64) ([]byte, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	e := &l.w.enc
	e.start(seq, 0, 0)
	e.segment(l.mu.index.last, l.mu.index.term(l.mu.index.last))
	e.bytes(recordMeta, l.mu.meta)
	if l.mu.hs != (hardState{}) {
		e.hardState(l.mu.hs)
	}
	if err := l.encodeSnapshot(recordSnapshot, l.mu.snap); err != nil {
		return nil, err
	}
	return e.finish(), nil
}

// reveal gives a segment its name, durably.
func (l *Log) reveal(s *segment) error {
	if err := l.o.FS.Rename(s.path+tmpSuffix, s.path); err != nil {
		return err
	}
	return l.o.FS.SyncDir(l.o.Dir)
}

// adopt makes s the active segment.
func (l *Log) adopt(s *segment, pos int64) {
	l.w.pos, l.w.synced = pos, pos
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.index.push(s)
}

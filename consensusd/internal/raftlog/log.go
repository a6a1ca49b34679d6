package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Log is the durable log of one member. It is a raft.Storage.
//
// Every method may be called from any goroutine. Writes (Append, Truncate,
// ApplySnapshot, SetMeta, Close) take turns; reads never wait for a write or a
// sync, only for the moment in which its result becomes visible, which is
// after it is durable.
//
//	Append  lay out the batch → maybe rotate → write → sync → publish
//	rotate  write next segment aside → seal and sync this one → rename
//
// The first failure of a write or a sync ends all writing: what the disk holds
// is unknown from then on, and a second fsync may well succeed without having
// written anything. The owner stops the process, and recovery reads what there
// is.
type Log struct {
	o    Options
	lock io.Closer

	// w belongs to whoever writes; it is taken before mu.
	w struct {
		sync.Mutex
		enc     encoder
		pos     int64 // end of the active segment
		synced  int64 // durable up to here
		scratch []byte
	}

	mu struct {
		sync.RWMutex
		index index
		cache cache
		hs    hardState
		snap  *raftpb.Snapshot
		meta  []byte
		err   error // why nothing can be written any more
	}
}

var _ raft.Storage = (*Log)(nil)

// Create makes an empty log whose metadata is meta. It returns ErrExist when
// there is one already. A crash in it leaves no log.
func Create(o Options, meta []byte) (*Log, error) {
	l, names, err := prepare(o, true)
	if err != nil {
		return nil, err
	}
	if err := l.create(names, meta); err != nil {
		return nil, errors.Join(err, l.lock.Close())
	}
	return l, nil
}

// Open recovers the log in o.Dir. It returns ErrNotExist when there is none
// and a *DamageError when durable bytes are not what was written.
func Open(o Options) (*Log, error) {
	l, names, err := prepare(o, false)
	if err != nil {
		return nil, err
	}
	if err := l.recover(names); err != nil {
		return nil, errors.Join(err, l.lock.Close())
	}
	return l, nil
}

// Exists tells whether o.Dir holds a log.
func Exists(o Options) (bool, error) {
	o = o.withDefaults()
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return false, err
	}
	names, err := o.FS.List(o.Dir)
	return hasSegment(names), err
}

func hasSegment(names []string) bool {
	for _, name := range names {
		if _, tmp, ok := segmentSeq(name); ok && !tmp {
			return true
		}
	}
	return false
}

func prepare(o Options, create bool) (*Log, []string, error) {
	l := &Log{o: o.withDefaults()}
	l.mu.cache.max = l.o.CacheBytes
	l.mu.snap = raftpb.EnsureSnapshot(nil)
	fs := l.o.FS
	if err := fs.MkdirAll(l.o.Dir); err != nil {
		return nil, nil, fmt.Errorf("raftlog: %w", err)
	}
	lock, err := fs.Lock(l.o.Dir)
	if err != nil {
		return nil, nil, fmt.Errorf("raftlog: %w", err)
	}
	l.lock = lock
	names, err := fs.List(l.o.Dir)
	if err == nil && hasSegment(names) == create {
		err = map[bool]error{true: ErrExist, false: ErrNotExist}[create]
		err = fmt.Errorf("%w in %s", err, l.o.Dir)
	}
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	return l, names, nil
}

func (l *Log) create(names []string, meta []byte) error {
	for _, name := range names {
		if _, tmp, ok := segmentSeq(name); ok && tmp {
			if err := l.o.FS.Remove(filepath.Join(l.o.Dir, name)); err != nil {
				return fmt.Errorf("raftlog: %w", err)
			}
		}
	}
	l.mu.meta = bytes.Clone(meta)
	s, pos, err := l.writeAside(1)
	if err == nil {
		err = l.reveal(s)
	}
	if err == nil {
		err = l.o.FS.SyncDir(filepath.Dir(l.o.Dir))
	}
	if err != nil {
		return fmt.Errorf("raftlog: create %s: %w", l.o.Dir, err)
	}
	l.adopt(s, pos)
	return nil
}

// Append writes one batch: a snapshot that replaces the log, entries behind
// it, and the hard state, each optional. When it returns nil, they are durable
// (as raft.MustSync has it: a change of the commit index alone is not synced)
// and visible to readers. An entry at or below the last index supersedes the
// ones from there on. It panics if the entries do not continue the log.
//
// The log keeps entries, and shares them with its readers: they are immutable
// from here on.
func (l *Log) Append(hs *raftpb.HardState, entries []*raftpb.Entry, snap *raftpb.Snapshot) error {
	if raft.IsEmptyHardState(hs) {
		hs = nil
	}
	if raft.IsEmptySnap(snap) {
		snap = nil
	}
	l.w.Lock()
	defer l.w.Unlock()
	prev, base, last, err := l.standing()
	if err != nil || (hs == nil && len(entries) == 0 && snap == nil) {
		return err
	}
	if snap != nil {
		base, last = snap.GetMetadata().GetIndex(), snap.GetMetadata().GetIndex()
	}
	entries = mustContinue(entries, base, last)
	size, err := batchBytes(entries, snap)
	if err != nil {
		return err
	}
	if err := l.maybeRotate(size); err != nil {
		return err
	}
	e := l.start()
	if snap != nil {
		if err := l.encodeSnapshot(recordReset, snap); err != nil {
			return err
		}
	}
	for _, ent := range entries {
		e.entry(ent)
	}
	if hs != nil {
		e.hardState(hardStateOf(hs))
	}
	if err := l.write(snap != nil || mustSync(hs, prev, len(entries))); err != nil {
		return err
	}
	l.publish(hs, entries, snap)
	return nil
}

// mustSync: an absent hard state is an unchanged one.
func mustSync(hs *raftpb.HardState, prev hardState, entries int) bool {
	return entries > 0 || hs != nil && (hs.GetVote() != prev.vote || hs.GetTerm() != prev.term)
}

// mustContinue checks that entries can follow and drops those that the
// snapshot covers.
func mustContinue(entries []*raftpb.Entry, base, last uint64) []*raftpb.Entry {
	for i, e := range entries {
		if want := entries[0].GetIndex() + uint64(i); e.GetIndex() != want {
			panic(fmt.Sprintf("raftlog: append: entry %d where %d was expected", e.GetIndex(), want))
		}
	}
	for len(entries) > 0 && entries[0].GetIndex() <= base {
		entries = entries[1:]
	}
	if len(entries) > 0 && entries[0].GetIndex() > last+1 {
		panic(fmt.Sprintf("raftlog: append: entry %d after last index %d", entries[0].GetIndex(), last))
	}
	return entries
}

func batchBytes(entries []*raftpb.Entry, snap *raftpb.Snapshot) (int64, error) {
	size := int64(proto.Size(snap)) + 4*(headerBytes+hardStatePayload)
	for _, e := range entries {
		size += int64(entrySize(e))
	}
	if size > batchBytesMax {
		return 0, fmt.Errorf("raftlog: append: batch of %d bytes, at most %d fit", size, batchBytesMax)
	}
	return size, nil
}

// standing is what a writer, who is alone, builds on.
func (l *Log) standing() (hs hardState, base, last uint64, err error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.mu.hs, l.mu.index.base, l.mu.index.last, l.mu.err
}

func (l *Log) start() *encoder {
	e := &l.w.enc
	e.start(l.active().seq, l.w.pos, l.w.synced)
	return e
}

// active is the segment written to, which only a writer changes.
func (l *Log) active() *segment {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.mu.index.active()
}

func (l *Log) encodeSnapshot(t recordType, snap *raftpb.Snapshot) error {
	b, err := proto.MarshalOptions{}.MarshalAppend(l.w.scratch[:0], snap)
	if err != nil {
		return fmt.Errorf("raftlog: encode snapshot: %w", err)
	}
	l.w.scratch = b
	l.w.enc.bytes(t, b)
	return nil
}

// write puts the encoded batch at the end of the active segment.
func (l *Log) write(sync bool) error {
	s, b := l.active(), l.w.enc.finish()
	began := time.Now()
	if _, err := s.file.WriteAt(b, l.w.pos); err != nil {
		return l.fail("write", s.path, err)
	}
	wrote := time.Now()
	l.w.pos += int64(len(b))
	var syncTook time.Duration
	if sync {
		if err := s.file.Sync(); err != nil {
			return l.fail("sync", s.path, err)
		}
		l.w.synced = l.w.pos
		syncTook = time.Since(wrote)
	}
	if l.o.OnAppend != nil {
		l.o.OnAppend(len(b), wrote.Sub(began), syncTook)
	}
	return nil
}

// publish shows readers what was written.
func (l *Log) publish(hs *raftpb.HardState, entries []*raftpb.Entry, snap *raftpb.Snapshot) {
	var dropped []*segment
	l.mu.Lock()
	if snap != nil {
		meta := snap.GetMetadata()
		l.mu.snap = proto.CloneOf(snap)
		l.mu.index.reset(meta.GetIndex(), meta.GetTerm())
		l.mu.cache.cut(0)
		dropped = l.mu.index.forget(meta.GetIndex(), meta.GetTerm())
	}
	for i, e := range entries {
		l.mu.index.add(e.GetIndex(), e.GetTerm(), l.w.enc.slots[i])
	}
	if len(entries) > 0 {
		l.mu.cache.add(entries)
	}
	if hs != nil {
		l.mu.hs = hardStateOf(hs)
	}
	l.mu.Unlock()
	l.remove(dropped)
}

// ApplySnapshot replaces the log by a snapshot: metadata (index, term, conf
// state) and data, an opaque blob of the owner. It is Append of a snapshot
// alone.
func (l *Log) ApplySnapshot(snap *raftpb.Snapshot) error { return l.Append(nil, nil, snap) }

// Truncate forgets the entries up to index, which becomes the snapshot's, with
// the conf state and the owner's data as of index. Files go when no kept entry
// lies in them. An index at or below the snapshot's changes nothing; one
// beyond the last panics. The entries must be committed.
func (l *Log) Truncate(index uint64, conf *raftpb.ConfState, data []byte) error {
	l.w.Lock()
	defer l.w.Unlock()
	l.mu.RLock()
	term, last, base, err := l.mu.index.term(index), l.mu.index.last, l.mu.index.base, l.mu.err
	l.mu.RUnlock()
	if err != nil || index <= base {
		return err
	}
	if index > last {
		panic(fmt.Sprintf("raftlog: truncate at %d beyond last index %d", index, last))
	}
	snap := &raftpb.Snapshot{
		Data: bytes.Clone(data),
		Metadata: &raftpb.SnapshotMetadata{
			Index: new(index), Term: new(term), ConfState: raftpb.EnsureConfState(proto.CloneOf(conf)),
		},
	}
	if err := l.maybeRotate(int64(proto.Size(snap)) + headerBytes); err != nil {
		return err
	}
	l.start()
	if err := l.encodeSnapshot(recordSnapshot, snap); err != nil {
		return err
	}
	// Durable before any file goes, else what is left would begin with a hole.
	if err := l.write(true); err != nil {
		return err
	}
	l.mu.Lock()
	l.mu.snap = snap
	dropped := l.mu.index.forget(index, term)
	l.mu.cache.forget(index)
	l.mu.Unlock()
	l.remove(dropped)
	return nil
}

// remove deletes segments that nothing refers to any more. One that cannot be
// removed is removed by the next recovery.
func (l *Log) remove(dropped []*segment) {
	for _, s := range dropped {
		if err := errors.Join(l.o.FS.Remove(s.path), s.release()); err != nil {
			l.o.Log.Warn("segment not removed", "file", s.path, "err", err)
		}
	}
}

// Meta returns the metadata given to Create or SetMeta.
func (l *Log) Meta() []byte {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return bytes.Clone(l.mu.meta)
}

// SetMeta replaces the metadata, durably.
func (l *Log) SetMeta(meta []byte) error {
	l.w.Lock()
	defer l.w.Unlock()
	if _, _, _, err := l.standing(); err != nil {
		return err
	}
	if err := l.maybeRotate(int64(len(meta)) + headerBytes); err != nil {
		return err
	}
	l.start().bytes(recordMeta, meta)
	if err := l.write(true); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.meta = bytes.Clone(meta)
	return nil
}

// Err is the failure that ended writing, or nil.
func (l *Log) Err() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.mu.err
}

// fail poisons the log.
func (l *Log) fail(op, path string, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.err == nil {
		l.mu.err = fmt.Errorf("raftlog: %s %s: %w (the log takes no more writes; the process must stop)", op, path, err)
	}
	return l.mu.err
}

// Close syncs and closes the files; the log must not be used after it. After a
// clean Close every damage is told from a torn write.
func (l *Log) Close() error {
	l.w.Lock()
	defer l.w.Unlock()
	_, _, _, failed := l.standing()
	if errors.Is(failed, ErrClosed) {
		return nil
	}
	err := failed
	if failed == nil {
		err = l.mark()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.err = ErrClosed
	for _, s := range l.mu.index.segments {
		err = errors.Join(err, s.release())
	}
	return errors.Join(err, l.lock.Close())
}

// mark records that everything before it is durable, and makes itself durable.
func (l *Log) mark() error {
	if err := l.active().file.Sync(); err != nil {
		return l.fail("sync", l.active().path, err)
	}
	l.w.synced = l.w.pos
	l.start().begin(recordMark)
	return l.write(true)
}

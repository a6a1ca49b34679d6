// Package memlog is a log in memory, for tests: raft's own memory storage with
// the metadata beside it. It survives a restart of whoever uses it, and loses
// nothing that was appended; a log that a crash may tear is raftlog's matter.
package memlog

import (
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quartet-kv/quartet/consensusd/internal/node"
)

// Log implements node.Storage. The zero value is not usable; see New.
type Log struct {
	*raft.MemoryStorage

	mu struct {
		sync.Mutex
		meta node.Meta
		size uint64
		fail error
	}
}

// New returns an empty log.
func New() *Log { return &Log{MemoryStorage: raft.NewMemoryStorage()} }

// Fail makes every write from now on return err.
func (l *Log) Fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.fail = err
}

// InitialState implements raft.Storage.
func (l *Log) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	hs, _, err := l.MemoryStorage.InitialState()
	l.mu.Lock()
	defer l.mu.Unlock()
	hs, conf := l.mu.meta.InitialState(hs)
	return hs, conf, err
}

// Append implements node.Storage.
func (l *Log) Append(hs *raftpb.HardState, entries []*raftpb.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.fail != nil {
		return l.mu.fail
	}
	for _, e := range entries {
		l.mu.size += uint64(len(e.Data))
	}
	if err := l.MemoryStorage.Append(entries); err != nil {
		return err
	}
	if hs == nil {
		return nil
	}
	return l.SetHardState(hs)
}

// Truncate implements node.Storage.
func (l *Log) Truncate(below uint64) error {
	first, err := l.FirstIndex()
	if err != nil || below <= first {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.fail != nil {
		return l.mu.fail
	}
	l.mu.size = 0 // what is kept is small, in a test that truncates
	return l.Compact(below - 1)
}

// SaveMeta implements node.Storage.
func (l *Log) SaveMeta(m node.Meta) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.meta = m
	return l.mu.fail
}

// Meta implements node.Storage.
func (l *Log) Meta() (node.Meta, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.meta, nil
}

// TailStart implements node.Storage.
func (l *Log) TailStart(bytes uint64) uint64 {
	last, err := l.LastIndex()
	if err != nil {
		return 0
	}
	for i := last; ; i-- {
		e, err := l.Entries(i, i+1, 0)
		if err != nil || uint64(len(e[0].Data)) > bytes {
			return i + 1
		}
		bytes -= uint64(len(e[0].Data))
	}
}

// Size implements node.Storage.
func (l *Log) Size() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.size
}

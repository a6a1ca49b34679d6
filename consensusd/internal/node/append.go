package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// commitDelay bounds how long a commit index, which alone needs no durability,
// waits for an append to travel with.
const commitDelay = time.Second

// appender writes what raft wants stored, and sends what depended on it.
//
// Its queue is not bounded by itself: it never holds more than raft's limits
// on uncommitted and inflight bytes allow, and the loop must not wait for it.
type appender struct {
	storage Storage
	acks    chan<- []*raftpb.Message
	send    func([]*raftpb.Message)
	seconds prometheus.Observer
	entries prometheus.Observer
	wake    chan struct{} // one token: the queue is not empty

	mu struct {
		sync.Mutex
		queue []*raftpb.Message // MsgStorageAppend
		chore chore
	}

	// The goroutine's own.
	term, vote uint64            // as stored
	unsaved    *raftpb.HardState // differs from what is stored in its commit only
}

// chore is what is to be done after the appends that are queued.
type chore struct {
	meta     *Meta
	truncate uint64 // 0: no
}

func newAppender(s Storage, acks chan<- []*raftpb.Message, send func([]*raftpb.Message), m Metrics) *appender {
	return &appender{storage: s, acks: acks, send: send, seconds: m.AppendSeconds, entries: m.AppendEntries, wake: make(chan struct{}, 1)}
}

// push queues a MsgStorageAppend.
func (a *appender) push(m *raftpb.Message) {
	a.mu.Lock()
	a.mu.queue = append(a.mu.queue, m)
	a.mu.Unlock()
	a.signal()
}

// saveMeta queues metadata; truncate, if not 0, comes after it.
func (a *appender) saveMeta(m Meta, truncate uint64) {
	a.mu.Lock()
	a.mu.chore.meta = &m
	a.mu.chore.truncate = max(a.mu.chore.truncate, truncate)
	a.mu.Unlock()
	a.signal()
}

func (a *appender) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *appender) take() ([]*raftpb.Message, chore) {
	a.mu.Lock()
	defer a.mu.Unlock()
	queue, c := a.mu.queue, a.mu.chore
	a.mu.queue, a.mu.chore = nil, chore{}
	return queue, c
}

// run writes until ctx ends or a write fails.
func (a *appender) run(ctx context.Context) error {
	hs, _, err := a.storage.InitialState()
	if err != nil {
		return fmt.Errorf("read the log's state: %w", err)
	}
	a.term, a.vote = hs.GetTerm(), hs.GetVote()
	timer := time.NewTimer(commitDelay)
	defer timer.Stop()
	for {
		late := false
		select {
		case <-a.wake:
		case <-timer.C:
			late = true
			timer.Reset(commitDelay)
		case <-ctx.Done():
			// What is queued was promised to nobody; only what was held back is written.
			_, c := a.take()
			return a.finish(c)
		}
		queue, c := a.take()
		if err := a.write(ctx, queue); err != nil {
			return err
		}
		if late && len(queue) == 0 {
			if err := a.flush(); err != nil {
				return err
			}
		}
		if err := a.do(c); err != nil {
			return err
		}
	}
}

// write makes the queue durable with one append, then sends what waited for it.
func (a *appender) write(ctx context.Context, queue []*raftpb.Message) error {
	if len(queue) == 0 {
		return nil
	}
	var entries []*raftpb.Entry
	sync := false
	for _, m := range queue {
		if m.GetSnapshot() != nil && !raft.IsEmptySnap(m.GetSnapshot()) {
			return fmt.Errorf("append: snapshot at index %d was not refused", m.GetSnapshot().GetMetadata().GetIndex())
		}
		if m.GetTerm() != 0 || m.GetVote() != 0 || m.GetCommit() != 0 {
			a.unsaved = &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
			sync = sync || m.GetTerm() != a.term || m.GetVote() != a.vote
		}
		entries = overlay(entries, m.Entries)
	}
	if sync || len(entries) > 0 {
		if err := a.append(entries); err != nil {
			return err
		}
	}
	return a.acknowledge(ctx, queue)
}

func (a *appender) append(entries []*raftpb.Entry) error {
	begin := time.Now()
	hs := a.unsaved
	if err := a.storage.Append(hs, entries); err != nil {
		return fmt.Errorf("append %d entries: %w", len(entries), err)
	}
	a.seconds.Observe(time.Since(begin).Seconds())
	a.entries.Observe(float64(len(entries)))
	if hs != nil {
		a.term, a.vote = hs.GetTerm(), hs.GetVote()
	}
	a.unsaved = nil
	return nil
}

// acknowledge sends the responses of the queue, in order: those for this
// member to the loop, the others to the peers.
func (a *appender) acknowledge(ctx context.Context, queue []*raftpb.Message) error {
	var local, remote []*raftpb.Message
	for _, m := range queue {
		for _, r := range m.Responses {
			if r.GetTo() == m.GetFrom() {
				local = append(local, r)
			} else {
				remote = append(remote, r)
			}
		}
	}
	if len(remote) > 0 {
		a.send(remote)
	}
	if len(local) == 0 {
		return nil
	}
	select {
	case a.acks <- local:
	case <-ctx.Done():
	}
	return nil
}

// flush writes a commit index that has waited.
func (a *appender) flush() error {
	if a.unsaved == nil {
		return nil
	}
	return a.append(nil)
}

func (a *appender) do(c chore) error {
	if c.meta != nil {
		if err := a.storage.SaveMeta(*c.meta); err != nil {
			return fmt.Errorf("save metadata at %d: %w", c.meta.Applied, err)
		}
	}
	if c.truncate != 0 {
		if err := a.storage.Truncate(c.truncate); err != nil {
			return fmt.Errorf("truncate below %d: %w", c.truncate, err)
		}
	}
	return nil
}

func (a *appender) finish(c chore) error {
	if err := a.flush(); err != nil {
		return err
	}
	return a.do(c)
}

// overlay appends more to entries, which it owns; where they overlap, more is
// the newer.
//
//	[4 5 6] + [7 8] = [4 5 6 7 8]
//	[4 5 6] + [5]   = [4 5]
//	[4 5 6] + [3 4] = [3 4]
func overlay(entries, more []*raftpb.Entry) []*raftpb.Entry {
	if len(entries) == 0 || len(more) == 0 {
		return append(entries, more...)
	}
	first, next := entries[0].GetIndex(), more[0].GetIndex()
	if next <= first {
		return append(entries[:0], more...)
	}
	return append(entries[:next-first], more...)
}

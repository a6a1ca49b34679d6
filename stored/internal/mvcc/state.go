package mvcc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/keyspace"
	"github.com/quartet-kv/quartet/services/logid"
	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/row"
)

// FirstRevision is the revision of an empty store, which no write made.
const FirstRevision = 1

// View is where the applied state stands. It is immutable.
type View struct {
	// Position of the entry and the command that were applied last.
	engine.Position
	row.Meta
	// Term is the highest raft term that the store has heard of.
	Term logid.Term
	next chan struct{} // closed when there is a later view
}

// Committed is how far the engine has been given what was applied.
type Committed struct {
	engine.Position
	Revision int64
	next     chan struct{}
}

// State is what readers read. One goroutine publishes, any number read.
type State struct {
	Keyspace *keyspace.Keyspace
	Engine   engine.Engine

	view      atomic.Pointer[View]
	committed atomic.Pointer[Committed]
	purging   atomic.Int64 // revisions below it may be gone
}

// New returns the state as the engine holds it at the position it stands at.
func New(ks *keyspace.Keyspace, e engine.Engine, start View) *State {
	s := &State{Keyspace: ks, Engine: e}
	start.next = make(chan struct{})
	s.view.Store(&start)
	s.committed.Store(&Committed{Position: start.Position, Revision: start.Revision, next: make(chan struct{})})
	return s
}

// View is the latest.
func (s *State) View() *View { return s.view.Load() }

// Committed is the latest.
func (s *State) Committed() *Committed { return s.committed.Load() }

// Publish replaces the view. Called by the apply loop.
func (s *State) Publish(v View) {
	v.next = make(chan struct{})
	close(s.view.Swap(&v).next)
}

// Commit says that the engine holds everything up to p, whose revision is
// given. Called by the apply loop.
func (s *State) Commit(p engine.Position, revision int64) {
	s.Keyspace.Committed(revision)
	close(s.committed.Swap(&Committed{Position: p, Revision: revision, next: make(chan struct{})}).next)
}

// Wait returns a view at or beyond the index and the revision. Index 0 asks for
// no position, and its epoch is not looked at. It waits until ctx ends
// (errs.ErrNotReady), and not at all when the asker's epoch is an older one: its
// position is not part of this history.
func (s *State) Wait(ctx context.Context, epoch logid.Epoch, index logid.Index, revision int64) (*View, error) {
	for {
		v := s.View()
		if v.reached(epoch, index, revision) {
			return v, nil
		}
		if index != 0 && v.Log.Epoch > epoch {
			return nil, errs.ErrNotReady
		}
		select {
		case <-v.next:
		case <-ctx.Done():
			return nil, errs.ErrNotReady
		}
	}
}

// Reached tells without waiting what Wait would wait for.
func (s *State) Reached(epoch logid.Epoch, index logid.Index, revision int64) bool {
	return s.View().reached(epoch, index, revision)
}

func (v *View) reached(epoch logid.Epoch, index logid.Index, revision int64) bool {
	return (index == 0 || v.Log.Epoch == epoch && v.Log.Index >= index) && v.Revision >= revision
}

// WaitStamp waits until the engine holds a stamp.
func (s *State) WaitStamp(ctx context.Context, stamp engine.Stamp) error {
	return s.waitCommitted(ctx, func(c *Committed) bool { return c.Stamp >= stamp })
}

// WaitRevision waits until the engine holds a revision.
func (s *State) WaitRevision(ctx context.Context, revision int64) error {
	return s.waitCommitted(ctx, func(c *Committed) bool { return c.Revision >= revision })
}

func (s *State) waitCommitted(ctx context.Context, reached func(*Committed) bool) error {
	for {
		c := s.Committed()
		if reached(c) {
			return nil
		}
		select {
		case <-c.next:
		case <-ctx.Done():
			return errs.ErrNotReady
		}
	}
}

// Changed is closed when there is a view after v.
func (v *View) Changed() <-chan struct{} { return v.next }

// StampOf returns the stamp at which the engine holds a revision, and waits
// until it does. The revision must not be compacted or in the future.
func (s *State) StampOf(ctx context.Context, revision int64) (engine.Stamp, error) {
	if revision <= FirstRevision {
		return 0, nil
	}
	if err := s.WaitRevision(ctx, revision); err != nil {
		return 0, err
	}
	h, err := s.History(revision)
	if errors.Is(err, engine.ErrNotFound) && revision < s.View().Compact {
		return 0, rpctypes.ErrGRPCCompacted
	}
	return engine.Stamp(h.Stamp), err
}

// History returns the row of a revision that the engine holds.
func (s *State) History(revision int64) (row.History, error) {
	value, _, err := s.Engine.Get(row.HistoryKey(revision), s.Committed().Stamp)
	if err != nil {
		return row.History{}, fmt.Errorf("history of revision %d: %w", revision, err)
	}
	return row.DecodeHistory(value)
}

// Purging says that revisions below the given one are being given up.
func (s *State) Purging(revision int64) { s.purging.Store(revision) }

// Intact tells whether what was read at a revision is whole: ErrCompacted if
// rows may have been purged meanwhile. Ask after reading.
func (s *State) Intact(revision int64) error {
	if revision < s.purging.Load() {
		return rpctypes.ErrGRPCCompacted
	}
	return nil
}

// CheckRevision is etcd's check of an asked revision against the present; zero
// and below ask for the present one.
func (v *View) CheckRevision(revision int64) error {
	return CheckRevision(revision, v.Revision, v.Compact)
}

// CheckRevision compares an asked revision with the present and the compact
// one.
func CheckRevision(asked, present, compact int64) error {
	switch {
	case asked <= 0:
		return nil
	case asked > present:
		return rpctypes.ErrGRPCFutureRev
	case asked < compact:
		return rpctypes.ErrGRPCCompacted
	default:
		return nil
	}
}

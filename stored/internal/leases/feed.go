// Package leases feeds lessors: every lease record as of a position, then each
// change after it, in order. A lessor keeps time for what it was told and has
// nothing else to go by, so a feed that cannot keep up ends rather than leave
// something out.
//
// A subscriber is registered between two batches of entries, at a known stamp;
// its records are read from the engine at that stamp, while the changes after it
// gather.
package leases

import (
	"sync"

	"google.golang.org/grpc"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/stored/internal/apply"
	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
	"github.com/quartet-kv/quartet/stored/internal/row"
)

// Limits of a Feed.
const (
	// pendingMax bounds the changes that wait for one subscriber.
	pendingMax = 1 << 20
	// messageChangesMax bounds the changes in one message.
	messageChangesMax = 4096
)

// Feed is where lessors hear of leases.
type Feed struct {
	state *mvcc.State

	mu struct {
		sync.Mutex
		view        mvcc.View
		subscribers map[*subscriber]struct{}
	}
}

type subscriber struct {
	wake chan struct{}
	// pending and behind are guarded by the feed.
	pending []*storepb.LeaseChange
	behind  bool
}

// NewFeed returns a Feed without subscribers.
func NewFeed(state *mvcc.State) *Feed {
	f := &Feed{state: state}
	f.mu.view = *state.View()
	f.mu.subscribers = make(map[*subscriber]struct{})
	return f
}

// Add tells of what was applied. Called by the apply loop.
func (f *Feed) Add(e *apply.Effects, v *mvcc.View) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.view = *v
	for s := range f.mu.subscribers {
		s.pending = append(s.pending, e.Leases...)
		if len(s.pending) > pendingMax {
			s.pending, s.behind = nil, true
		}
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Serve runs one Leases call until its context ends.
func (f *Feed) Serve(g grpc.ServerStreamingServer[storepb.LeaseChanges]) error {
	s, view := f.subscribe()
	defer f.unsubscribe(s)
	if err := f.sendRecords(g, view); err != nil {
		return err
	}
	for {
		select {
		case <-s.wake:
		case <-g.Context().Done():
			return g.Context().Err()
		}
		changes, next, behind := f.take(s)
		if behind {
			return errs.ErrFollowBehind
		}
		for len(changes) > messageChangesMax {
			m := message(view) // only the last message has reached the next position
			m.Changes, changes = changes[:messageChangesMax], changes[messageChangesMax:]
			if err := g.Send(m); err != nil {
				return err
			}
		}
		view = next
		m := message(view)
		m.Changes = changes
		if err := g.Send(m); err != nil {
			return err
		}
	}
}

func (f *Feed) subscribe() (*subscriber, mvcc.View) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &subscriber{wake: make(chan struct{}, 1)}
	f.mu.subscribers[s] = struct{}{}
	return s, f.mu.view
}

func (f *Feed) unsubscribe(s *subscriber) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.mu.subscribers, s)
}

func (f *Feed) take(s *subscriber) ([]*storepb.LeaseChange, mvcc.View, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changes := s.pending
	s.pending = nil
	return changes, f.mu.view, s.behind
}

// sendRecords sends all leases as of the view. A revoke or an expiry after it is
// among the changes that follow.
func (f *Feed) sendRecords(g grpc.ServerStreamingServer[storepb.LeaseChanges], view mvcc.View) error {
	if err := f.state.WaitStamp(g.Context(), view.Stamp); err != nil {
		return err
	}
	it := f.state.Engine.Iterate(engine.IterOptions{Lower: []byte{row.PrefixLease}, Upper: []byte{row.PrefixLease + 1}, At: view.Stamp})
	defer it.Close()
	var changes []*storepb.LeaseChange
	for it.Next() {
		r := it.Row()
		if len(r.Value) == 0 {
			continue
		}
		l, err := row.DecodeLease(r.Value)
		if err != nil {
			return err
		}
		changes = append(changes, &storepb.LeaseChange{
			Op: storepb.LeaseChange_GRANTED, Id: int64(row.Number(r.Key)), GrantIndex: l.GrantIndex, Ttl: l.TTL, Remaining: l.Remaining,
		})
		if len(changes) == messageChangesMax {
			if err := g.Send(&storepb.LeaseChanges{Changes: changes}); err != nil {
				return err
			}
			changes = nil
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	m := message(view)
	m.Complete, m.Changes = true, changes
	return g.Send(m)
}

func message(v mvcc.View) *storepb.LeaseChanges {
	return &storepb.LeaseChanges{At: v.Log.Proto(), Revision: v.Revision, Claim: v.Claim, ClaimMember: v.ClaimMember}
}

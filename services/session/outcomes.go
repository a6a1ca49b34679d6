package session

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

// reader is the outcome loop's state: which store to read next.
type reader struct {
	*Session
	// last is the member whose store was read last.
	last uint64
	// penalties say until when a store is asked only if no other is left, and
	// how long the next penalty is.
	penalties map[uint64]penalty
	leader    uint64
	// lost is the highest number that each store has said to have no outcome
	// for, while an outcome is hunted for from store to store.
	lost  map[uint64]uint64
	epoch logid.Epoch
	stall stall
	// evictedAt is when a session was evicted last.
	evictedAt time.Time
}

type penalty struct {
	until time.Time
	next  time.Duration
}

// Why a store's stream is left.
var (
	errMoved   = errors.New("another store is preferred")
	errStalled = errors.New("no outcomes")
	errLost    = errors.New("outcomes are lost")
	errEvicted = errors.New("the session is not open")
)

// evictionsApart is how far apart evictions must be for the next session to be
// opened at once.
const evictionsApart = 10 * time.Second

// outcomeLoop reads outcomes from one store after another.
func (s *Session) outcomeLoop(ctx context.Context) {
	r := &reader{Session: s, penalties: make(map[uint64]penalty), lost: make(map[uint64]uint64)}
	for ctx.Err() == nil {
		changed := s.directory.Changed()
		view := s.directory.View()
		r.onView(view)
		member, until := r.pick(view, time.Now())
		if member == 0 {
			pause := time.Duration(0) // until the directory knows a member
			if !until.IsZero() {
				pause = max(time.Until(until), time.Microsecond)
			}
			wait(ctx, changed, pause)
			continue
		}
		err := r.read(ctx, member)
		s.attached.Store(0)
		if ctx.Err() == nil {
			s.log.Debug("outcome stream ended", "member", member, "session", s.ID(), "err", err)
			r.onEnd(view, member, err)
		}
	}
}

// onView forgives everybody when the leader changes, and drops the session when
// history was rewritten.
func (r *reader) onView(v cluster.View) (evicted bool) {
	if v.Leader != r.leader && v.Leader != 0 {
		r.leader = v.Leader
		clear(r.penalties)
	}
	evicted = r.epoch != 0 && v.Epoch > r.epoch && r.onEvicted(r.ID())
	r.epoch = v.Epoch
	return evicted
}

// pick chooses the leader's store, else the next after the last one; stores with
// a penalty only when their time has come. Without any it tells when to look
// again; a zero time is when the directory changes.
func (r *reader) pick(v cluster.View, now time.Time) (member uint64, until time.Time) {
	order := make([]uint64, 0, len(v.Members)+1)
	if _, ok := v.Member(v.Leader); ok {
		order = append(order, v.Leader)
	}
	for _, m := range v.Members {
		if m.Id > r.last {
			order = append(order, m.Id)
		}
	}
	for _, m := range v.Members {
		if m.Id <= r.last {
			order = append(order, m.Id)
		}
	}
	for _, id := range order {
		if _, told := r.lost[id]; told && len(r.lost) < len(v.Members) {
			continue
		}
		p := r.penalties[id]
		if !p.until.After(now) {
			return id, now
		}
		if until.IsZero() || p.until.Before(until) {
			until = p.until
		}
	}
	return 0, until
}

// onEnd judges why a store's stream ended.
func (r *reader) onEnd(v cluster.View, member uint64, err error) {
	r.last = member
	if errors.Is(err, errMoved) || errors.Is(err, errEvicted) {
		return
	}
	if !errors.Is(err, errLost) {
		r.punish(member, err)
		if len(r.lost) > 0 { // a hunt does not wait for this one
			r.lost[member] = math.MaxUint64
		}
	}
	r.maybeGiveUp(v)
}

func (r *reader) punish(member uint64, err error) {
	p := r.penalties[member]
	p.next = min(max(2*p.next, r.config.RetryMin), r.config.RetryMax)
	if errors.Is(err, errStalled) {
		p.next = 2 * r.config.StallAfter
	}
	p.until = time.Now().Add(p.next)
	r.penalties[member] = p
}

// maybeGiveUp ends a hunt when every store was asked: what all of them have lost
// is lost.
func (r *reader) maybeGiveUp(v cluster.View) {
	if len(r.lost) == 0 {
		return
	}
	through := uint64(math.MaxUint64)
	for _, m := range v.Members {
		told, ok := r.lost[m.Id]
		if !ok {
			return
		}
		through = min(through, told)
	}
	clear(r.lost)
	if through != math.MaxUint64 {
		r.log.Warn("outcomes are lost at every store", "session", r.ID(), "through", through)
		r.window.giveUp(r.ID(), through)
	}
}

func (r *reader) onEvicted(id uint64) bool {
	if !r.window.evicted(id) {
		return false
	}
	r.log.Warn("session is not open any more", "session", id)
	clear(r.lost)
	return true
}

// read answers commands from one store until that store should be left.
func (r *reader) read(ctx context.Context, member uint64) error {
	client, err := r.directory.Store(member)
	if err != nil {
		return err
	}
	who, after := r.window.unansweredAfter()
	if r.huntEnded(after) {
		clear(r.lost)
	}
	request := &storepb.OutcomesRequest{Session: who.id, AfterSeq: after}
	if who.id == 0 {
		request = &storepb.OutcomesRequest{Nonce: who.nonce}
	}
	f := &follower{session: r.Session, who: who}
	err = r.readStream(ctx, client, request, member, f)
	if lost := f.lost.Load(); lost > 0 {
		r.lost[member] = lost
	} else if f.answered.Load() {
		delete(r.penalties, member)
	}
	return r.judge(ctx, client, f.who, err)
}

// huntEnded tells whether everything that was hunted for is answered.
func (r *reader) huntEnded(after uint64) bool {
	for _, lost := range r.lost {
		if lost != math.MaxUint64 && lost > after {
			return false
		}
	}
	return true
}

func (r *reader) readStream(ctx context.Context, client storepb.StoreClient, request *storepb.OutcomesRequest, member uint64, f *follower) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stream, err := client.Outcomes(ctx, request)
	if err != nil {
		return err
	}
	r.metrics.stores.Inc()
	r.attached.Store(member)
	ended := make(chan error, 1)
	wg.Go(func() { ended <- f.run(stream) })
	return r.watch(ctx, member, ended)
}

// watch returns when the stream ends, or why it should be left.
func (r *reader) watch(ctx context.Context, member uint64, ended <-chan error) error {
	tick := time.NewTicker(r.config.StallAfter / 4)
	defer tick.Stop()
	for {
		changed := r.directory.Changed()
		view := r.directory.View()
		if r.onView(view) {
			return errEvicted
		}
		if preferred, _ := r.pick(view, time.Now()); preferred == view.Leader && preferred != member && preferred != 0 {
			return errMoved
		}
		select {
		case err := <-ended:
			return err
		case <-changed:
		case now := <-tick.C:
			if renew, next := r.stall.check(now, r.window, r.config.StallAfter, view.Led()); next {
				if renew {
					r.renew()
				}
				return errStalled
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// judge turns a store's "unknown session" into an eviction, if the store has
// applied the entry that opened the session.
func (r *reader) judge(ctx context.Context, client storepb.StoreClient, who identity, err error) error {
	if !errors.Is(err, errs.ErrUnknownSession) || who.id == 0 {
		return err
	}
	statusCtx, cancel := context.WithTimeout(ctx, r.config.StallAfter)
	defer cancel()
	status, statusErr := client.GetStatus(statusCtx, &storepb.GetStatusRequest{})
	if statusErr != nil {
		return statusErr
	}
	if status.GetApplied().GetIndex() < who.id {
		return fmt.Errorf("store has not opened the session yet: %w", err)
	}
	// Whoever has our name closes our session by opening its own, as we close its
	// session: then neither should hurry.
	if time.Since(r.evictedAt) < evictionsApart {
		wait(ctx, nil, r.config.RetryMax)
	}
	r.evictedAt = time.Now()
	r.onEvicted(who.id)
	return errEvicted
}

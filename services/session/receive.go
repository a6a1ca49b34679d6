package session

import (
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
)

// verdict is what a batch of outcomes tells beside its answers.
type verdict struct {
	// lost is the highest number in flight whose outcome this store does not
	// have any more; 0 when it has all.
	lost uint64
	// gap: a command was refused since one before it is not in the log.
	gap bool
	// unknown: a command was refused since its session is not open.
	unknown bool
}

// receive answers the commands that a batch decides. Outcomes of numbers that
// are answered already are skipped, so that stores may be asked over again.
func (w *window) receive(id uint64, outcomes []*storepb.Outcome) (v verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id != w.mu.identity.id {
		return verdict{}
	}
	answers := w.mu.answers
	for _, o := range outcomes {
		if o.Seq < w.mu.first || o.Seq-w.mu.first >= uint64(w.mu.inflight.len()) {
			continue
		}
		s := w.mu.inflight.at(int(o.Seq - w.mu.first))
		switch {
		case s.call == nil: // answered already
		case o.Fate == storepb.Outcome_LOST:
			v.lost = max(v.lost, o.Seq)
		case o.Fate == storepb.Outcome_GAP:
			v.gap = true
			w.metric.gaps.Inc()
		case o.Error == unknownSession:
			s.refused, v.unknown = true, true
		default:
			w.answerLocked(s, o, nil)
		}
	}
	w.metric.outcomes.Add(float64(w.mu.answers - answers))
	w.advanceLocked()
	return v
}

var unknownSession = errs.Text(errs.ErrUnknownSession)

// opened says which session the nonce has opened.
func (w *window) opened(nonce []byte, id uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.identity.id != 0 || string(nonce) != string(w.mu.identity.nonce) {
		return false
	}
	w.mu.identity.id = id
	w.metric.opened.Inc()
	w.wakeLocked()
	return true
}

// evicted says that the session is not open any more, and prepares to open
// another one. What was sent may have been applied before the eviction, so its
// fate is open, with one exception: a command whose only proposal was refused,
// and those behind it that were sent once. They were sent on the same stream, as
// a new one would have begun with the first, so their entries, if there will
// ever be any, come later in the log and are refused too. They are proposed
// again.
func (w *window) evicted(id uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id == 0 || id != w.mu.identity.id {
		return false
	}
	w.mu.identity = identityOf(newNonce())
	w.mu.opening = false
	var again []*call
	refused := false
	for i := range w.mu.inflight.len() {
		s := w.mu.inflight.at(i)
		refused = refused || s.refused && s.sends == 1
		switch {
		case s.call == nil:
		case s.command.Kind == logpb.Command_SESSION_CLOSE:
			w.answerLocked(s, nil, nil)
		case refused && s.sends == 1:
			again = append(again, s.call)
			w.mu.unanswered--
			s.call = nil
		default:
			w.answerLocked(s, nil, rpctypes.ErrGRPCTimeout)
			w.metric.lost.Inc()
		}
	}
	w.requeueLocked(again)
	w.mu.inflight.clear()
	w.mu.payloads.clear()
	w.mu.inflightBytes, w.mu.cursor, w.mu.first = 0, 0, 1
	w.advanceLocked()
	return true
}

func identityOf(nonce []byte) identity { return identity{nonce: nonce} }

// requeueLocked puts calls in front of the queue, in their order.
func (w *window) requeueLocked(calls []*call) {
	calls = slices.DeleteFunc(calls, func(c *call) bool { return c.abandoned })
	if len(calls) == 0 {
		return
	}
	behind := w.mu.queue
	w.mu.queue = deque[*call]{}
	for _, c := range calls {
		c.place = queued
		w.mu.queueBytes += cost(c.command)
		w.mu.queue.push(c)
	}
	for behind.len() > 0 {
		w.mu.queue.push(behind.pop())
	}
}

// giveUp answers the commands up to through that no store has the outcome of.
func (w *window) giveUp(id, through uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id != w.mu.identity.id {
		return
	}
	for i := 0; i < w.mu.inflight.len() && w.mu.first+uint64(i) <= through; i++ {
		if s := w.mu.inflight.at(i); s.call != nil {
			w.answerLocked(s, nil, rpctypes.ErrGRPCTimeout)
			w.metric.lost.Inc()
		}
	}
	w.advanceLocked()
}

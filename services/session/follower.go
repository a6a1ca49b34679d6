package session

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
)

// follower reads one store's stream of outcomes.
type follower struct {
	session  *Session
	who      identity
	lost     atomic.Uint64
	answered atomic.Bool
	gap      time.Time
}

// run reads until the stream ends, the store has lost an outcome, or the session
// turns out not to be open.
func (f *follower) run(stream storepb.Store_OutcomesClient) error {
	for {
		b, err := stream.Recv()
		if err != nil {
			return err
		}
		if f.who.id == 0 {
			if b.Session == 0 || !f.session.window.opened(f.who.nonce, b.Session) {
				return fmt.Errorf("store names session %d for an opened nonce", b.Session)
			}
			f.who.id = b.Session
			f.session.log.Info("session opened", "session", b.Session)
		}
		if b.Session != f.who.id {
			return fmt.Errorf("store answers for session %d instead of %d", b.Session, f.who.id)
		}
		f.answered.Store(true)
		v := f.session.window.receive(b.Session, b.Outcomes)
		switch {
		case v.unknown:
			return errs.ErrUnknownSession
		case v.lost > 0:
			f.lost.Store(v.lost)
			return errLost
		case v.gap:
			f.onGap()
		}
	}
}

// onGap asks for a stream that starts with the first command in flight; once in
// a while, since refusals of what was sent before may still come.
func (f *follower) onGap() {
	if now := time.Now(); now.Sub(f.gap) > f.session.config.RetryMax {
		f.gap = now
		f.session.renew()
	}
}

// stall finds out when commands in flight go without outcomes.
type stall struct {
	answers uint64
	since   time.Time
	strikes int
	renewAt int
}

// check tells whether the next store should be read, and whether the commands
// should be proposed again too: after stallRenewals silent stores, then after
// twice as many each time, since proposing again is dear when all is merely slow.
func (s *stall) check(now time.Time, w *window, after time.Duration, led bool) (renew, next bool) {
	answers, awaited := w.load()
	if !awaited || !led || answers != s.answers || s.since.IsZero() {
		*s = stall{answers: answers, since: now, renewAt: stallRenewals}
		return false, false
	}
	if now.Sub(s.since) < after*time.Duration(s.strikes+1) {
		return false, false
	}
	s.strikes++
	if s.strikes < s.renewAt {
		return false, true
	}
	s.renewAt *= 2
	return true, true
}

package lessor

import (
	"time"

	"github.com/quartet-kv/quartet/proto/leasepb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/logid"
)

// claims is where this lessor stands with the rule of claims.
type claims struct {
	underWay bool
	notYet   time.Duration // no claim before
	// term is the last one in which this lessor claimed beside the leader, or
	// led while it was primary.
	term logid.Term
	// heard is when the primary was last heard of.
	heard   time.Duration
	probing bool
	probeAt time.Duration
}

// maybeClaim claims if the rule says so.
func (m *machine) maybeClaim() {
	leads := m.view.led && m.view.leader == m.self
	if m.primary && leads {
		m.claims.term = m.view.term
	}
	if !m.mayClaim() {
		return
	}
	own := m.feed.claimant == m.self && m.feed.claim != 0
	silent := m.now-m.claims.heard > m.cfg.SilenceMax+time.Duration(m.view.rank)*staggerStep
	if own || silent || (leads && m.view.term > m.claims.term) {
		m.claim()
	}
}

// mayClaim: the own claim does not stand already, and there is somebody to
// take another.
func (m *machine) mayClaim() bool {
	standing := m.mine != 0 && m.feed.claim == m.mine
	return m.self != 0 && m.feed.attached && m.feed.complete && m.view.led &&
		!standing && !m.claims.underWay && m.now >= m.claims.notYet
}

func (m *machine) claim() {
	term, leads := m.view.term, m.view.leader == m.self
	m.claims.underWay = true
	m.metrics.Claims.Inc()
	m.emit(propose{
		kind: logpb.Command_LESSOR_CLAIM,
		body: &logpb.LessorClaim{Member: m.self, Expected: m.feed.claim},
		done: func(m *machine, index uint64, err error) {
			m.claims.underWay = false
			// The feed may still have to show it; until then, and after a refusal,
			// another claim would be in vain.
			m.claims.notYet = m.now + retryPause
			if err != nil {
				return
			}
			m.mine = index
			if leads {
				m.claims.term = max(m.claims.term, term)
			}
		},
	})
}

// maybeProbe asks the primary, if it is another, whether it still is.
func (m *machine) maybeProbe() {
	other := m.feed.claimant
	if m.claims.probing || other == 0 || other == m.self || m.now < m.claims.probeAt || !m.feed.complete {
		return
	}
	m.claims.probing = true
	m.claims.probeAt = m.now + m.cfg.ProbeInterval
	m.emit(probe{member: other})
}

// onProbed takes the answer of a probe, nil when there was none.
func (m *machine) onProbed(member uint64, s *leasepb.Status) {
	m.claims.probing = false
	if s != nil && s.Primary && s.Claim == m.feed.claim && member == m.feed.claimant {
		m.claims.heard = m.now
	}
}

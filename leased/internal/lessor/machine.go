package lessor

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/leased/internal/expiry"
	"github.com/quartet-kv/quartet/proto/leasepb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/invariant"
	"github.com/quartet-kv/quartet/services/logid"
)

// Config is what may be chosen; see the daemon's flags.
type Config struct {
	// Grace is added to every lease's time at promotion, and bounds how old a
	// read index may be when it is answered by.
	Grace time.Duration
	// SilenceMax is how long a primary may be silent before another claims.
	SilenceMax time.Duration
	// ProbeInterval is how often the primary is asked whether it is one.
	ProbeInterval time.Duration
	// FeedLossMax is how long a primary waits for its feed to come back before
	// it says that it is none.
	FeedLossMax time.Duration
}

// Limits of the machine.
const (
	// passMax is the most that time advances in one pass.
	passMax = time.Second
	// holdMax is how long a renewal that was not answered yet holds its lease.
	holdMax = 5 * time.Second
	// retryPause is between two tries of the same command.
	retryPause = time.Second
	// staggerStep keeps claimants of different rank apart.
	staggerStep = 250 * time.Millisecond
	// expireLeasesMax and clearLeasesMax bound one command.
	expireLeasesMax = 512
	clearLeasesMax  = 4096
	// requestsMax bounds what waits for an answer; beyond it requests are refused.
	requestsMax = 16384
	// ttlSecondsMax keeps due times far from overflow.
	ttlSecondsMax = 9_000_000_000
)

// lease is one life of a lease.
type lease struct {
	id        int64
	grant     uint64 // index of the entry that granted it
	ttl       int64  // seconds
	remaining int64  // seconds by its last checkpoint, 0 for none
	// expiring: a LEASE_EXPIRE that names it may be under way.
	expiring bool
	queued   expiry.Item[*lease]
}

func seconds(s int64) time.Duration { return time.Duration(min(s, ttlSecondsMax)) * time.Second }

// feed is what the own store has said.
type feed struct {
	attached bool // a stream is open
	complete bool // at, claim and the leases are whole
	lostAt   time.Duration
	at       logid.ID
	revision int64
	claim    uint64
	claimant uint64
	arriving map[int64]*lease // initial records, until complete
}

// view is what the directory says, reduced to what the rule needs.
type view struct {
	led    bool
	leader uint64
	term   logid.Term
	rank   int // of this member among those that are not primary
}

// machine is the lessor without its surroundings.
type machine struct {
	cfg     Config
	metrics Metrics
	self    uint64

	real time.Duration // the clock, as of this pass
	now  time.Duration // the lessor's own time

	leases map[int64]*lease
	due    expiry.Queue[*lease]
	feed   feed
	view   view

	mine    uint64 // index of the own claim, 0 for none
	primary bool
	claims  claims
	renewal renewals
	expire  expirations

	effects []effect
}

func newMachine(cfg Config, metrics Metrics) *machine {
	return &machine{cfg: cfg, metrics: metrics, leases: make(map[int64]*lease)}
}

// effect is what the machine wants done.
type effect interface{ isEffect() }

// propose wants a command in the log; done is called with how it ended.
type propose struct {
	kind logpb.Command_Kind
	body proto.Message
	done func(m *machine, index uint64, err error)
}

// ask wants a read index for a round.
type ask struct{ round *round }

// probe wants to know whether a member is primary, and under which claim.
type probe struct{ member uint64 }

// answer ends a request.
type answer struct {
	request *Request
	result  Result
}

func (propose) isEffect() {}
func (ask) isEffect()     {}
func (probe) isEffect()   {}
func (answer) isEffect()  {}

func (m *machine) emit(e effect) { m.effects = append(m.effects, e) }

// take returns the effects since the last take.
func (m *machine) take() []effect {
	out := m.effects
	m.effects = nil
	return out
}

// advance begins a pass at this reading of the clock.
func (m *machine) advance(real time.Duration) {
	m.now += min(max(real-m.real, 0), passMax)
	m.real = max(real, m.real)
}

// step ends a pass: whatever can go on goes on.
func (m *machine) step() {
	m.maybeDemote()
	m.maybePromote()
	m.maybeClaim()
	m.maybeProbe()
	m.maybeAnswer()
	m.maybeAsk()
	m.maybeExpire()
	m.metrics.Leases.Set(float64(len(m.leases)))
	if invariant.On {
		m.check()
	}
}

func (m *machine) check() {
	invariant.Check(!m.primary || (m.feed.complete && m.feed.claim == m.mine && m.mine != 0),
		"primary under claim %d, feed at claim %d, complete %v", m.mine, m.feed.claim, m.feed.complete)
	if m.primary {
		invariant.Check(m.due.Len() == len(m.leases), "%d leases, %d of them will expire", len(m.leases), m.due.Len())
	} else {
		invariant.Check(m.due.Len() == 0 && len(m.renewal.arrived) == 0 && len(m.renewal.rounds) == 0, "a lessor that is not primary has work")
	}
}

// maybePromote makes this lessor primary when its feed shows its claim: every
// lease gets its full time, or what its checkpoint left of it, and the grace.
func (m *machine) maybePromote() {
	if m.primary || m.mine == 0 || !m.feed.complete || !m.feed.attached || m.feed.claim != m.mine {
		return
	}
	m.primary = true
	for _, l := range m.leases {
		left := l.ttl
		if l.remaining > 0 {
			left = l.remaining
		}
		m.due.Set(&l.queued, m.now+m.cfg.Grace+seconds(left))
	}
	m.metrics.Primary.Set(1)
}

// maybeDemote ends the primacy when another claim is seen, or the feed stays
// away: then somebody else must be able to take over.
func (m *machine) maybeDemote() {
	superseded := m.feed.complete && m.feed.claim != m.mine
	cutOff := !m.feed.attached && m.now-m.feed.lostAt > m.cfg.FeedLossMax
	if m.primary && (superseded || cutOff) {
		m.demote()
	}
}

// demote gives the claim up too: what was proposed under it may be under way,
// and the next claim stands behind it in the log.
func (m *machine) demote() {
	m.primary, m.mine = false, 0
	m.due.Clear()
	for _, l := range m.leases {
		l.expiring = false
	}
	m.failAll(errs.ErrNotPrimary)
	m.expire = expirations{}
	m.metrics.Primary.Set(0)
}

// onView takes what the directory says now.
func (m *machine) onView(v view) { m.view = v }

// status is what the lessor says about itself.
func (m *machine) status() *leasepb.Status {
	return &leasepb.Status{
		MemberId: m.self, Primary: m.primary,
		Claim: m.feed.claim, ClaimMember: m.feed.claimant, Leases: int64(len(m.leases)),
	}
}

// onFeedOpen begins a feed anew: its records replace all that is known.
func (m *machine) onFeedOpen(self uint64) {
	m.self = self
	m.feed.attached = true
	m.feed.arriving = make(map[int64]*lease)
}

func (m *machine) onFeedLost() {
	if m.feed.attached {
		m.feed.attached, m.feed.lostAt = false, m.now
	}
	m.feed.arriving = nil
}

// onFeed takes one message of the feed.
func (m *machine) onFeed(c *storepb.LeaseChanges) {
	if m.feed.arriving != nil {
		m.onRecords(c)
		return
	}
	for _, change := range c.Changes {
		m.onChange(change)
	}
	m.reached(c)
}

// onRecords gathers initial records. A lease that is known already, in the
// same life, keeps its time.
func (m *machine) onRecords(c *storepb.LeaseChanges) {
	for _, r := range c.Changes {
		l := m.leases[r.Id]
		if l == nil || l.grant != r.GrantIndex {
			l = newLease(r)
		}
		l.ttl, l.remaining = r.Ttl, r.Remaining
		m.feed.arriving[r.Id] = l
	}
	if !c.Complete {
		return
	}
	for id, l := range m.leases {
		if m.feed.arriving[id] != l {
			m.due.Remove(&l.queued)
		}
	}
	m.leases, m.feed.arriving = m.feed.arriving, nil
	if m.primary {
		for _, l := range m.leases {
			m.maybeStart(l)
		}
	}
	m.feed.complete = true
	m.reached(c)
}

func newLease(c *storepb.LeaseChange) *lease {
	l := &lease{id: c.Id, grant: c.GrantIndex, ttl: c.Ttl, remaining: c.Remaining}
	l.queued.Value = l
	return l
}

// maybeStart gives a lease its time if it has none yet.
func (m *machine) maybeStart(l *lease) {
	if !l.queued.Queued() {
		m.due.Set(&l.queued, m.now+seconds(l.ttl))
	}
}

func (m *machine) onChange(c *storepb.LeaseChange) {
	old := m.leases[c.Id]
	switch c.Op {
	case storepb.LeaseChange_GRANTED:
		if old != nil {
			m.due.Remove(&old.queued)
		}
		l := newLease(c)
		m.leases[c.Id] = l
		if m.primary {
			m.maybeStart(l)
		}
	case storepb.LeaseChange_REVOKED:
		if old != nil {
			m.due.Remove(&old.queued)
			delete(m.leases, c.Id)
		}
	case storepb.LeaseChange_CHECKPOINTED:
		if old != nil && old.grant == c.GrantIndex {
			old.remaining = c.Remaining
		}
	}
}

func (m *machine) reached(c *storepb.LeaseChanges) {
	m.feed.at, m.feed.revision = logid.FromProto(c.At), c.Revision
	if m.feed.claim != c.Claim {
		m.feed.claim, m.feed.claimant = c.Claim, c.ClaimMember
		m.claims.heard = m.now
	}
}

package lessor

import (
	"context"
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/quartet-kv/quartet/proto/leasepb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

// A whole cluster of machines, run by a seed:
//
//	go test ./leased/internal/lessor -run TestSimulation -lessor.seed=N

// simulation is one log, the lessors of three members, owners who renew, and
// everything that goes wrong: members that sleep, feeds that lag, leaders that
// change, proposals that are late, lost or in doubt.
type simulation struct {
	t    *testing.T
	seed uint64
	r    *rand.Rand
	now  time.Duration

	log    []*storepb.LeaseChanges
	leases map[int64]*storepb.LeaseChange
	claim  uint64
	claims int
	owner  uint64
	leader uint64
	term   logid.Term

	nodes   []*node
	events  []event
	promise map[int64]time.Duration // no lease may expire before
	ended   map[int64]bool          // by expiry, since it was last granted
	renewed int
	expired int
	calm    bool
}

// node is one member's lessor.
type node struct {
	*machine
	asleep time.Duration // until
	next   int           // of the log, in its feed
	lag    time.Duration // of its feed
	inbox  []func(*machine)
	owned  map[*Request][]int64
}

type event struct {
	at time.Duration
	do func()
}

const (
	simStep   = 50 * time.Millisecond
	simLength = 3 * time.Minute
)

func newSimulation(t *testing.T, seed uint64) *simulation {
	s := &simulation{
		t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 1)), leader: 1, term: 1,
		leases: make(map[int64]*storepb.LeaseChange), promise: make(map[int64]time.Duration),
		ended: make(map[int64]bool),
	}
	for id := uint64(1); id <= 3; id++ {
		n := &node{machine: newMachine(testConfig(), testMetrics()), owned: make(map[*Request][]int64)}
		n.onFeedOpen(id)
		n.onFeed(&storepb.LeaseChanges{At: &logpb.LogID{Epoch: 1}, Complete: true})
		s.nodes = append(s.nodes, n)
	}
	return s
}

func (s *simulation) chance(oneIn int) bool { return !s.calm && s.r.IntN(oneIn) == 0 }

// within is a delay, often short.
func (s *simulation) within(most time.Duration) time.Duration {
	if s.calm || s.r.IntN(3) > 0 {
		most /= 20
	}
	return time.Duration(s.r.Int64N(int64(most) + 1))
}

func (s *simulation) later(d time.Duration, do func()) {
	s.events = append(s.events, event{s.now + d, do})
}

func (s *simulation) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("seed %d at %v: "+format, append([]any{s.seed, s.now}, args...)...)
}

// append applies one command at the end of the log.
func (s *simulation) append(c *storepb.LeaseChanges) uint64 {
	index := uint64(len(s.log) + 1)
	c.At = &logpb.LogID{Epoch: 1, Index: index, Term: uint64(s.term)}
	c.Claim, c.ClaimMember = s.claim, s.owner
	s.log = append(s.log, c)
	return index
}

// commit applies a lessor's proposal.
func (s *simulation) commit(p propose) (uint64, error) {
	changes := &storepb.LeaseChanges{}
	switch body := p.body.(type) {
	case *logpb.LessorClaim:
		if body.Expected != s.claim {
			return s.append(changes), errs.ErrStaleClaim
		}
		s.claim, s.owner = uint64(len(s.log)+1), body.Member
		s.claims++
	case *logpb.LeaseExpire:
		if body.Claim != s.claim {
			return s.append(changes), errs.ErrStaleClaim
		}
		for _, f := range body.Leases {
			if l := s.leases[f.Id]; l != nil && l.GrantIndex == f.GrantIndex {
				s.expire(l)
				changes.Changes = append(changes.Changes, &storepb.LeaseChange{Op: storepb.LeaseChange_REVOKED, Id: f.Id, GrantIndex: f.GrantIndex})
			}
		}
	}
	return s.append(changes), nil
}

func (s *simulation) expire(l *storepb.LeaseChange) {
	if s.now < s.promise[l.Id] {
		s.fatalf("lease %d expires, it was promised until %v", l.Id, s.promise[l.Id])
	}
	delete(s.leases, l.Id)
	delete(s.promise, l.Id)
	s.ended[l.Id] = true
	s.expired++
}

func (s *simulation) grant() {
	id := s.r.Int64N(30)
	if s.leases[id] != nil {
		return
	}
	l := &storepb.LeaseChange{Op: storepb.LeaseChange_GRANTED, Id: id, GrantIndex: uint64(len(s.log) + 1), Ttl: 2 + s.r.Int64N(6)}
	s.leases[id], s.ended[id] = l, false
	s.promise[id] = s.now + seconds(l.Ttl)
	s.append(&storepb.LeaseChanges{Changes: []*storepb.LeaseChange{l}})
}

func (s *simulation) revoke() {
	for id, l := range s.leases {
		delete(s.leases, id)
		delete(s.promise, id)
		s.append(&storepb.LeaseChanges{Changes: []*storepb.LeaseChange{{Op: storepb.LeaseChange_REVOKED, Id: id, GrantIndex: l.GrantIndex}}})
		return
	}
}

// disturb lets something happen in the cluster.
func (s *simulation) disturb() {
	if s.chance(3) {
		s.grant()
	}
	if s.chance(200) && len(s.leases) == 1 { // with one, the choice is not the map's
		s.revoke()
	}
	if s.chance(200) {
		s.leader = 0
		s.later(s.within(8*time.Second), func() { s.term++; s.leader = 1 + s.r.Uint64N(3) })
	}
	for _, n := range s.nodes {
		if s.chance(150) {
			n.asleep = s.now + s.within(20*time.Second)
		}
		if s.chance(100) {
			n.lag = s.within(20 * time.Second)
		}
		if s.chance(300) {
			n.inbox = append(n.inbox, (*machine).onFeedLost)
			s.later(s.within(4*time.Second), func() { s.reopen(n) })
		}
	}
}

// reopen starts a node's feed with the records of now.
func (s *simulation) reopen(n *node) {
	first := &storepb.LeaseChanges{At: &logpb.LogID{Epoch: 1, Index: uint64(len(s.log))}, Complete: true, Claim: s.claim, ClaimMember: s.owner}
	for _, id := range slices.Sorted(mapKeys(s.leases)) {
		first.Changes = append(first.Changes, s.leases[id])
	}
	n.next = len(s.log)
	n.inbox = append(n.inbox, func(m *machine) {
		m.onFeedOpen(m.self)
		m.onFeed(first)
	})
}

func mapKeys(m map[int64]*storepb.LeaseChange) func(func(int64) bool) {
	return func(yield func(int64) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// feed gives a node what its store has applied.
func (s *simulation) feed(n *node) {
	if n.lag > 0 {
		n.lag -= simStep
		return
	}
	for ; n.next < len(s.log); n.next++ {
		c := s.log[n.next]
		n.inbox = append(n.inbox, func(m *machine) {
			if m.feed.attached {
				m.onFeed(c)
			}
		})
	}
}

// renew lets an owner ask a lessor, primary or not.
func (s *simulation) renew(n *node) {
	q := &Request{Kind: Renew, ctx: context.Background(), done: make(chan Result, 1)}
	for range 1 + s.r.IntN(3) {
		q.IDs = append(q.IDs, s.r.Int64N(30))
	}
	n.inbox = append(n.inbox, func(m *machine) { m.onRequest(q) })
}

// pass is one pass of a node's loop, if it is awake.
func (s *simulation) pass(n *node) {
	if s.now < n.asleep {
		return
	}
	n.advance(s.now)
	for _, message := range n.inbox {
		message(n.machine)
	}
	n.inbox = n.inbox[:0]
	n.onView(view{led: s.leader != 0, leader: s.leader, term: s.term, rank: int(n.self) - 1})
	n.step()
	n.check()
	for _, e := range n.take() {
		s.execute(n, e)
	}
}

func (s *simulation) execute(n *node, e effect) {
	switch e := e.(type) {
	case answer:
		s.answered(e)
	case propose:
		s.propose(n, e)
	case ask:
		s.later(s.within(time.Second), func() { s.ask(n, e.round) })
	case probe:
		s.later(s.within(time.Second), func() {
			other := s.nodes[e.member-1]
			var status *leasepb.Status
			if s.now >= other.asleep {
				status = other.status()
			}
			n.inbox = append(n.inbox, func(m *machine) { m.onProbed(e.member, status) })
		})
	}
}

// answered: from now on the owner counts the full time.
func (s *simulation) answered(a answer) {
	for i, ttl := range a.result.TTLs {
		if ttl > 0 {
			s.renewed++
			id := a.request.IDs[i]
			if s.ended[id] {
				s.fatalf("lease %d is renewed, and it has expired", id)
			}
			if s.leases[id] != nil {
				s.promise[id] = max(s.promise[id], s.now+time.Duration(ttl)*time.Second)
			}
		}
	}
}

func (s *simulation) propose(n *node, p propose) {
	s.later(s.within(3*time.Second), func() {
		switch {
		case s.leader == 0 && s.chance(2):
			n.inbox = append(n.inbox, func(m *machine) { p.done(m, 0, context.DeadlineExceeded) })
		case s.leader == 0:
			s.propose(n, p)
		default:
			index, err := s.commit(p)
			if s.chance(10) {
				index, err = 0, context.DeadlineExceeded // in doubt, though it was applied
			}
			s.later(s.within(2*time.Second), func() {
				n.inbox = append(n.inbox, func(m *machine) { p.done(m, index, err) })
			})
		}
	})
}

func (s *simulation) ask(n *node, r *round) {
	if s.leader == 0 {
		s.later(100*time.Millisecond, func() { s.ask(n, r) })
		return
	}
	read := logid.ID{Epoch: 1, Index: logid.Index(len(s.log))}
	s.later(s.within(time.Second), func() {
		n.inbox = append(n.inbox, func(m *machine) { m.onIndex(r, read, s.term, nil) })
	})
}

func (s *simulation) step() {
	s.now += simStep
	s.disturb()
	due := s.events
	s.events = nil
	for _, e := range due {
		if e.at <= s.now {
			e.do()
		} else {
			s.events = append(s.events, e)
		}
	}
	for _, n := range s.nodes {
		s.feed(n)
		if !s.calm && s.r.IntN(8) == 0 {
			s.renew(n)
		}
		s.pass(n)
	}
}

// settle: when nothing goes wrong any more and nobody renews, every lease ends.
func (s *simulation) settle() {
	s.calm = true
	for began := s.now; len(s.leases) > 0; s.step() {
		if s.leader == 0 && len(s.events) == 0 {
			s.leader, s.term = 1, s.term+1
		}
		if s.now-began > 2*time.Minute {
			s.fatalf("%d leases live on, claim %d of member %d", len(s.leases), s.claim, s.owner)
		}
	}
}

func TestSimulationKeepsEveryPromise(t *testing.T) {
	first, count := uint64(1), uint64(100)
	if *seedFlag != 0 {
		first, count = *seedFlag, 1
	}
	var renewed, expired, claims int
	for seed := first; seed < first+count; seed++ {
		s := newSimulation(t, seed)
		for s.now < simLength {
			s.step()
		}
		s.settle()
		renewed, expired, claims = renewed+s.renewed, expired+s.expired, claims+s.claims
	}
	t.Logf("%d renewals, %d expiries, %d claims", renewed, expired, claims)
	if n := int(count); renewed < 100*n || expired < 3*n || claims < 3*n {
		t.Fatalf("too quiet to show anything: %d renewals, %d expiries, %d claims", renewed, expired, claims)
	}
}

var seedFlag = flag.Uint64("lessor.seed", 0, "run the simulation with this seed only")

package lessor

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

// Kind is what a Request asks.
type Kind int

const (
	// Renew asks to extend leases; Result.TTLs has one per id.
	Renew Kind = iota
	// Remaining asks what is left; Result.Left and Result.TTLs have one per id.
	Remaining
	// All asks for every id; Result.IDs has them, the soonest to expire first.
	All
)

// Request is one question to the lessor.
type Request struct {
	Kind Kind
	IDs  []int64
	// ctx ends when nobody waits for the answer any more.
	ctx  context.Context
	done chan Result
}

// Result is the answer to a Request.
type Result struct {
	// TTLs are seconds as granted; 0 for a lease that does not exist.
	TTLs []int64
	// Left is the remaining time; -1 for a lease that does not exist.
	Left []time.Duration
	IDs  []int64
	// Revision and Term are what the answer was based on.
	Revision int64
	Term     logid.Term
	Err      error
}

// renewals is what waits for an answer, oldest first: rounds whose read index
// was asked, then requests that arrived since.
type renewals struct {
	arrived []*Request
	rounds  []*round
	asking  bool
	waiting int // requests in both
	clear   clearing
}

// round is the requests that one read index answers.
type round struct {
	requests []*Request
	asked    time.Duration // by the clock, not by the lessor's time
	indexed  bool
	read     logid.ID
	term     logid.Term
}

// clearing is the command that clears checkpoints of leases about to be
// renewed.
type clearing struct {
	underWay bool
	through  uint64 // the feed must have reached this index
	notYet   time.Duration
}

// onRequest takes a request, or refuses it.
func (m *machine) onRequest(r *Request) {
	switch {
	case !m.primary:
		m.emit(answer{r, Result{Err: errs.ErrNotPrimary}})
		return
	case m.renewal.waiting >= requestsMax:
		m.emit(answer{r, Result{Err: errs.ErrTooManyRequests}})
		return
	}
	if r.Kind == Renew {
		for _, id := range r.IDs {
			if l := m.leases[id]; l != nil && !l.expiring && l.queued.Due() < m.now+holdMax {
				m.due.Set(&l.queued, m.now+holdMax)
			}
		}
	}
	m.renewal.arrived = append(m.renewal.arrived, r)
	m.renewal.waiting++
}

// maybeAsk asks one read index for all that arrived.
func (m *machine) maybeAsk() {
	r := &m.renewal
	if r.asking || len(r.arrived) == 0 {
		return
	}
	r.asking = true
	next := &round{requests: r.arrived, asked: m.real}
	r.arrived = nil
	r.rounds = append(r.rounds, next)
	m.emit(ask{next})
}

// onIndex takes the answer for the last round that was asked.
func (m *machine) onIndex(asked *round, read logid.ID, term logid.Term, err error) {
	r := &m.renewal
	n := len(r.rounds)
	if n == 0 || r.rounds[n-1] != asked {
		return // a demotion has answered it
	}
	r.asking = false
	switch {
	case err == nil:
		asked.read, asked.term, asked.indexed = read, term, true
	case errors.Is(err, context.DeadlineExceeded):
		r.rounds = r.rounds[:n-1]
		m.again(asked)
	default:
		r.rounds = r.rounds[:n-1]
		m.fail(asked.requests, err)
	}
}

// again puts a round's requests back, before those that arrived since, without
// the ones that nobody waits for.
func (m *machine) again(old *round) {
	kept := old.requests[:0]
	for _, q := range old.requests {
		if q.ctx.Err() == nil {
			kept = append(kept, q)
		} else {
			m.renewal.waiting--
		}
	}
	m.renewal.arrived = append(kept, m.renewal.arrived...)
}

// maybeAnswer answers the rounds that the feed has reached.
func (m *machine) maybeAnswer() {
	r := &m.renewal
	for len(r.rounds) > 0 && r.rounds[0].indexed && m.reachedBy(r.rounds[0].read) {
		first := r.rounds[0]
		if m.real-first.asked > m.cfg.Grace {
			m.takeBack()
			return
		}
		if !m.cleared(first) {
			return
		}
		r.rounds = r.rounds[1:]
		for _, q := range first.requests {
			m.answer(q, first.term)
		}
	}
}

// reachedBy tells whether the feed stands at or beyond a position.
func (m *machine) reachedBy(read logid.ID) bool {
	return m.feed.attached && m.feed.complete && m.feed.at.Epoch == read.Epoch && m.feed.at.Index >= read.Index
}

// takeBack puts every round back to be asked afresh: from the last to the
// first, each before what is there already, so that the order stays.
func (m *machine) takeBack() {
	r := &m.renewal
	for n := len(r.rounds); n > 0; n-- {
		m.again(r.rounds[n-1])
	}
	r.rounds, r.asking = nil, false
}

// cleared tells whether no lease that the round renews has a checkpoint left;
// otherwise it has them cleared.
func (m *machine) cleared(first *round) bool {
	c := &m.renewal.clear
	if c.underWay || uint64(m.feed.at.Index) < c.through {
		return false
	}
	command := &logpb.LeaseCheckpoint{Claim: m.mine}
	for _, q := range first.requests {
		if q.Kind != Renew {
			continue
		}
		for _, id := range q.IDs {
			if l := m.leases[id]; l != nil && l.remaining > 0 && !l.expiring && len(command.Leases) < clearLeasesMax {
				command.Leases = append(command.Leases, &logpb.LeaseCheckpoint_Remaining{Lease: l.fence()})
			}
		}
	}
	if len(command.Leases) == 0 {
		return true
	}
	if m.now < c.notYet {
		return false
	}
	c.underWay = true
	claim := m.mine
	m.emit(propose{
		kind: logpb.Command_LEASE_CHECKPOINT,
		body: command,
		done: func(m *machine, index uint64, err error) {
			if m.mine != claim || !m.primary {
				return // the demotion has forgotten it
			}
			c := &m.renewal.clear
			c.underWay = false
			if err != nil {
				c.notYet = m.now + retryPause
				return
			}
			c.through = index
		},
	})
	return false
}

func (l *lease) fence() *logpb.LeaseFence {
	return &logpb.LeaseFence{Id: l.id, GrantIndex: l.grant}
}

// answer answers one request from what the feed shows.
func (m *machine) answer(q *Request, term logid.Term) {
	res := Result{Revision: m.feed.revision, Term: term}
	switch q.Kind {
	case Renew:
		res.TTLs = make([]int64, len(q.IDs))
		for i, id := range q.IDs {
			res.TTLs[i] = m.renew(id)
		}
		m.metrics.Renewals.Add(float64(len(q.IDs)))
	case Remaining:
		for _, id := range q.IDs {
			left, ttl := m.left(id)
			res.Left, res.TTLs = append(res.Left, left), append(res.TTLs, ttl)
		}
	case All:
		for _, it := range m.due.Sorted(func(a, b *lease) int { return cmp.Compare(a.id, b.id) }) {
			res.IDs = append(res.IDs, it.Value.id)
		}
	}
	m.renewal.waiting--
	m.emit(answer{q, res})
}

// renew extends a lease and returns its TTL, or 0.
func (m *machine) renew(id int64) int64 {
	l := m.leases[id]
	if l == nil || l.expiring {
		return 0
	}
	m.due.Set(&l.queued, m.now+seconds(l.ttl))
	return l.ttl
}

// left is what remains of a lease: never negative while it exists, and never
// more than was granted, whatever grace it enjoys.
func (m *machine) left(id int64) (time.Duration, int64) {
	l := m.leases[id]
	if l == nil {
		return -1, 0
	}
	if l.expiring {
		return 0, l.ttl
	}
	return min(max(l.queued.Due()-m.now, 0), seconds(l.ttl)), l.ttl
}

func (m *machine) fail(requests []*Request, err error) {
	for _, q := range requests {
		m.renewal.waiting--
		m.emit(answer{q, Result{Err: err}})
	}
}

// failAll answers everything that waits with an error.
func (m *machine) failAll(err error) {
	for _, r := range m.renewal.rounds {
		m.fail(r.requests, err)
	}
	m.fail(m.renewal.arrived, err)
	m.renewal = renewals{}
}

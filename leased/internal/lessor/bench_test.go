package lessor

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/logid"
)

func testMetrics() Metrics {
	g := func() prometheus.Gauge { return prometheus.NewGauge(prometheus.GaugeOpts{Name: "x"}) }
	c := func() prometheus.Counter { return prometheus.NewCounter(prometheus.CounterOpts{Name: "x"}) }
	return Metrics{Leases: g(), Primary: g(), Claims: c(), Renewals: c(), Expired: c()}
}

func testConfig() Config {
	return Config{Grace: time.Second, SilenceMax: 3 * time.Second, ProbeInterval: 500 * time.Millisecond, FeedLossMax: 2 * time.Second}
}

// bench is a machine with a log of its own making.
type bench struct {
	*machine
	t     *testing.T
	index uint64
	clock time.Duration
}

func newBench(t *testing.T) *bench {
	return &bench{machine: newMachine(testConfig(), testMetrics()), t: t}
}

// pass is one pass of the loop, d after the last one.
func (b *bench) pass(d time.Duration, messages ...func(*machine)) []effect {
	b.clock += d
	b.advance(b.clock)
	for _, m := range messages {
		m(b.machine)
	}
	b.step()
	return b.take()
}

// passes lets d pass in steps that count whole, answering nothing.
func (b *bench) passes(d time.Duration) (out []effect) {
	for ; d > 0; d -= 100 * time.Millisecond {
		out = append(out, b.pass(min(d, 100*time.Millisecond))...)
	}
	return out
}

// changed is the next message of the feed.
func (b *bench) changed(changes ...*storepb.LeaseChange) func(*machine) {
	b.index++
	at := &logpb.LogID{Epoch: 1, Index: b.index}
	for _, c := range changes {
		if c.Op == storepb.LeaseChange_GRANTED && c.GrantIndex == 0 {
			c.GrantIndex = b.index
		}
	}
	claim, claimant := b.feed.claim, b.feed.claimant
	return func(m *machine) {
		m.onFeed(&storepb.LeaseChanges{At: at, Changes: changes, Claim: claim, ClaimMember: claimant, Complete: m.feed.arriving != nil})
	}
}

// claimed is the message that shows a claim.
func (b *bench) claimed(member uint64) func(*machine) {
	b.index++
	index := b.index
	return func(m *machine) {
		m.onFeed(&storepb.LeaseChanges{At: &logpb.LogID{Epoch: 1, Index: index}, Claim: index, ClaimMember: member})
	}
}

func leads(leader uint64, term logid.Term) func(*machine) {
	return func(m *machine) { m.onView(view{led: leader != 0, leader: leader, term: term, rank: int(m.self) - 1}) }
}

func granted(id, ttl int64) *storepb.LeaseChange {
	return &storepb.LeaseChange{Op: storepb.LeaseChange_GRANTED, Id: id, Ttl: ttl}
}

// find returns the effects of one kind.
func find[E effect](effects []effect) (out []E) {
	for _, e := range effects {
		if e, ok := e.(E); ok {
			out = append(out, e)
		}
	}
	return out
}

func one[E effect](t *testing.T, effects []effect) E {
	t.Helper()
	found := find[E](effects)
	if len(found) != 1 {
		t.Fatalf("%d effects of type %T in %v, want 1", len(found), *new(E), effects)
	}
	return found[0]
}

// begin opens the feed of member 1 with these leases and shows who leads.
func (b *bench) begin(leader uint64, leases ...*storepb.LeaseChange) []effect {
	return b.pass(0, func(m *machine) { m.onFeedOpen(1) }, b.changed(leases...), leads(leader, 5))
}

// primary makes member 1 primary.
func primary(t *testing.T, leases ...*storepb.LeaseChange) *bench {
	b := newBench(t)
	claim := one[propose](t, b.begin(1, leases...))
	b.accept(claim)
	if !b.primary {
		t.Fatal("not primary")
	}
	return b
}

// accept applies a proposed claim of member 1.
func (b *bench) accept(claim propose) []effect {
	shown := b.claimed(1)
	return b.pass(0, shown, func(m *machine) { claim.done(m, b.index, nil) })
}

func (b *bench) request(kind Kind, ids ...int64) *Request {
	return &Request{Kind: kind, IDs: ids, ctx: context.Background(), done: make(chan Result, 1)}
}

// renew renews at once and returns the TTLs.
func (b *bench) renew(ids ...int64) []int64 {
	b.t.Helper()
	q := b.request(Renew, ids...)
	round := one[ask](b.t, b.pass(0, func(m *machine) { m.onRequest(q) })).round
	res := one[answer](b.t, b.pass(0, b.indexed(round, b.index))).result
	if res.Err != nil {
		b.t.Fatal(res.Err)
	}
	return res.TTLs
}

func (b *bench) indexed(r *round, index uint64) func(*machine) {
	return func(m *machine) { m.onIndex(r, logid.ID{Epoch: 1, Index: logid.Index(index)}, 5, nil) }
}

func expired(effects []effect) (ids []int64) {
	for _, p := range find[propose](effects) {
		if e, ok := p.body.(*logpb.LeaseExpire); ok {
			for _, l := range e.Leases {
				ids = append(ids, l.Id)
			}
		}
	}
	return ids
}

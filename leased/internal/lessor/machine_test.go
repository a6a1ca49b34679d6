package lessor

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/quartet-kv/quartet/proto/leasepb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
)

func TestLeaderClaimsOncePerTerm(t *testing.T) {
	b := newBench(t)
	claim := one[propose](t, b.begin(1))
	if c := claim.body.(*logpb.LessorClaim); c.Member != 1 || c.Expected != 0 {
		t.Fatalf("claim %v", c)
	}
	b.accept(claim)
	// Another takes it within the term: it is left with it.
	if got := find[propose](b.pass(0, b.claimed(2))); len(got) != 0 || b.primary {
		t.Fatalf("proposed %v, primary %v", got, b.primary)
	}
	alive := func(m *machine) { m.onProbed(2, &leasepb.Status{Primary: true, Claim: m.feed.claim}) }
	for range 100 {
		if got := find[propose](b.pass(100*time.Millisecond, alive)); len(got) != 0 {
			t.Fatalf("claimed back: %v", got)
		}
	}
	// In a new term it claims again.
	again := one[propose](t, b.pass(0, leads(1, 6))).body.(*logpb.LessorClaim)
	if again.Expected != b.feed.claim {
		t.Fatalf("claim %v, current %d", again, b.feed.claim)
	}
}

func TestSilentPrimaryIsReplacedInOrderOfRank(t *testing.T) {
	when := func(self uint64) time.Duration {
		b := newBench(t)
		b.pass(0, func(m *machine) { m.onFeedOpen(self) }, b.changed(), leads(9, 5))
		b.pass(0, b.claimed(9))
		for d := time.Duration(0); d < 10*time.Second; d += 100 * time.Millisecond {
			effects := b.pass(100 * time.Millisecond)
			if len(find[propose](effects)) > 0 {
				return d
			}
			for range find[probe](effects) {
				b.pass(0, func(m *machine) { m.onProbed(9, nil) })
			}
		}
		return -1
	}
	first, second := when(1), when(2)
	if first < testConfig().SilenceMax-100*time.Millisecond || second < first+staggerStep/2 || second > 6*time.Second {
		t.Fatalf("claimed after %v and %v", first, second)
	}
}

func TestPrimaryThatSaysItIsNoneIsSilent(t *testing.T) {
	b := newBench(t)
	b.pass(0, func(m *machine) { m.onFeedOpen(1) }, b.changed(), leads(9, 5))
	b.pass(0, b.claimed(9))
	not := func(m *machine) { m.onProbed(9, &leasepb.Status{Primary: false, Claim: m.feed.claim}) }
	for range 45 {
		if len(find[propose](b.pass(100*time.Millisecond, not))) > 0 {
			return
		}
	}
	t.Fatal("nobody claimed")
}

func TestOwnOlderClaimIsReplacedAtOnce(t *testing.T) {
	b := newBench(t)
	b.pass(0, func(m *machine) { m.onFeedOpen(1) }, b.changed(), leads(9, 5))
	claim := one[propose](t, b.pass(0, b.claimed(1)))
	if b.primary {
		t.Fatal("primary under a claim that another life made")
	}
	b.accept(claim)
	if !b.primary {
		t.Fatal("not primary")
	}
}

func TestRefusedClaimIsTriedAgainLater(t *testing.T) {
	b := newBench(t)
	claim := one[propose](t, b.begin(1))
	if got := find[propose](b.pass(0, func(m *machine) { claim.done(m, 0, errs.ErrStaleClaim) })); len(got) != 0 {
		t.Fatalf("at once: %v", got)
	}
	one[propose](t, b.passes(retryPause+100*time.Millisecond))
}

func TestPauseExpiresNothing(t *testing.T) {
	b := primary(t)
	b.pass(0, b.changed(granted(1, 10), granted(2, 3600)))
	// The process sleeps for an hour, twice.
	for range 2 {
		if got := expired(b.pass(time.Hour)); len(got) != 0 {
			t.Fatalf("expired %v on waking", got)
		}
	}
	if got := expired(b.passes(7900 * time.Millisecond)); len(got) != 0 {
		t.Fatalf("expired %v early", got)
	}
	if got := expired(b.passes(200 * time.Millisecond)); !slices.Equal(got, []int64{1}) {
		t.Fatalf("expired %v", got)
	}
}

func TestPromotionGivesTimeAgain(t *testing.T) {
	checkpointed := granted(2, 600)
	checkpointed.Remaining = 20
	b := primary(t, granted(1, 10), checkpointed)
	if got := expired(b.passes(10900 * time.Millisecond)); len(got) != 0 {
		t.Fatalf("expired %v early", got)
	}
	if got := expired(b.passes(300 * time.Millisecond)); !slices.Equal(got, []int64{1}) {
		t.Fatalf("expired %v, want the first", got)
	}
}

func TestCheckpointShortensTheTimeOfANewPrimary(t *testing.T) {
	checkpointed := granted(2, 600)
	checkpointed.Remaining = 20
	b := primary(t, checkpointed)
	if got := expired(b.passes(20900 * time.Millisecond)); len(got) != 0 {
		t.Fatalf("expired %v early", got)
	}
	if got := expired(b.passes(300 * time.Millisecond)); !slices.Equal(got, []int64{2}) {
		t.Fatalf("expired %v", got)
	}
}

func TestRenewalWaitsForTheFeedAndItsOrder(t *testing.T) {
	b := primary(t, granted(1, 10))
	first, second := b.request(Renew, 1), b.request(Renew, 2)
	r1 := one[ask](t, b.pass(0, func(m *machine) { m.onRequest(first) })).round
	// The second arrives while the first is being asked for: it must not share.
	if got := find[ask](b.pass(0, func(m *machine) { m.onRequest(second) })); len(got) != 0 {
		t.Fatalf("asked %v", got)
	}
	effects := b.pass(0, b.indexed(r1, b.index+1))
	if got := find[answer](effects); len(got) != 0 {
		t.Fatalf("answered before the feed was there: %v", got)
	}
	r2 := one[ask](t, effects).round
	if got := find[answer](b.pass(0, b.indexed(r2, b.index+1))); len(got) != 0 {
		t.Fatal("answered out of order")
	}
	got := find[answer](b.pass(0, b.changed(granted(2, 20))))
	if len(got) != 2 || got[0].request != first || got[0].result.TTLs[0] != 10 || got[1].result.TTLs[0] != 20 {
		t.Fatalf("answers %v", got)
	}
}

func TestRenewalIsNotAnsweredByAnOldReadIndex(t *testing.T) {
	b := primary(t, granted(1, 10))
	q := b.request(Renew, 1)
	r := one[ask](t, b.pass(0, func(m *machine) { m.onRequest(q) })).round
	b.pass(0, b.indexed(r, b.index+1))
	// The process stops; meanwhile another lessor may have claimed and counted.
	effects := b.pass(testConfig().Grace+time.Millisecond, b.changed())
	if got := find[answer](effects); len(got) != 0 {
		t.Fatalf("answered %v", got)
	}
	again := one[ask](t, effects).round
	if again == r || again.requests[0] != q {
		t.Fatal("not asked afresh")
	}
	if res := one[answer](t, b.pass(0, b.indexed(again, b.index))).result; res.TTLs[0] != 10 {
		t.Fatalf("answer %v", res)
	}
}

func TestRenewalDuringExpiryIsRefused(t *testing.T) {
	b := primary(t)
	b.pass(0, b.changed(granted(1, 2)))
	effects := b.passes(2100 * time.Millisecond)
	if got := expired(effects); !slices.Equal(got, []int64{1}) {
		t.Fatalf("expired %v", got)
	}
	if got := b.renew(1); got[0] != 0 {
		t.Fatalf("renewed %v", got)
	}
	// In doubt: it may still come, so no renewal; and it is proposed again.
	p := find[propose](effects)[0]
	b.pass(0, func(m *machine) { p.done(m, 0, context.DeadlineExceeded) })
	if got := b.renew(1); got[0] != 0 {
		t.Fatalf("renewed %v", got)
	}
	effects = b.passes(retryPause + 100*time.Millisecond)
	if got := expired(effects); !slices.Equal(got, []int64{1}) {
		t.Fatalf("expired %v", got)
	}
	// Never sent: it may be renewed.
	p = find[propose](effects)[0]
	b.pass(0, func(m *machine) { p.done(m, 0, errs.ErrTooManyRequests) })
	if got := b.renew(1); got[0] != 2 {
		t.Fatalf("renewed %v", got)
	}
}

func TestArrivedRenewalHoldsItsLease(t *testing.T) {
	b := primary(t)
	b.pass(0, b.changed(granted(1, 2)))
	b.passes(1900 * time.Millisecond)
	b.pass(0, func(m *machine) { m.onRequest(b.request(Renew, 1)) })
	if got := expired(b.passes(holdMax - 100*time.Millisecond)); len(got) != 0 {
		t.Fatalf("expired %v while its renewal waits", got)
	}
	if got := expired(b.passes(300 * time.Millisecond)); !slices.Equal(got, []int64{1}) {
		t.Fatalf("expired %v", got)
	}
}

func TestNothingExpiresWithoutALeader(t *testing.T) {
	b := primary(t)
	b.pass(0, b.changed(granted(1, 2)), leads(0, 5))
	if got := expired(b.passes(10 * time.Second)); len(got) != 0 {
		t.Fatalf("expired %v", got)
	}
	if got := expired(b.pass(0, leads(1, 6))); !slices.Equal(got, []int64{1}) {
		t.Fatalf("expired %v", got)
	}
}

func TestExpiryIsBoundedPerCommand(t *testing.T) {
	var many []*storepb.LeaseChange
	for id := int64(1); id <= expireLeasesMax+10; id++ {
		many = append(many, granted(id, 2))
	}
	b := primary(t)
	b.pass(0, b.changed(many...))
	effects := b.passes(2100 * time.Millisecond)
	if got := expired(effects); len(got) != expireLeasesMax {
		t.Fatalf("%d leases in the first command", len(got))
	}
	p := find[propose](effects)[0]
	if got := expired(b.pass(0, func(m *machine) { p.done(m, b.index, nil) })); len(got) != 10 {
		t.Fatalf("%d leases in the second command", len(got))
	}
}

func TestCheckpointIsClearedBeforeRenewal(t *testing.T) {
	c := granted(1, 600)
	c.Remaining = 20
	b := primary(t, c)
	q := b.request(Renew, 1)
	r := one[ask](t, b.pass(0, func(m *machine) { m.onRequest(q) })).round
	effects := b.pass(0, b.indexed(r, b.index))
	if got := find[answer](effects); len(got) != 0 {
		t.Fatalf("answered %v", got)
	}
	p := one[propose](t, effects)
	command := p.body.(*logpb.LeaseCheckpoint)
	if command.Claim != b.mine || len(command.Leases) != 1 || command.Leases[0].Seconds != 0 || command.Leases[0].Lease.Id != 1 {
		t.Fatalf("command %v", command)
	}
	// The outcome comes from another store, before the own feed shows it.
	cleared := b.changed(&storepb.LeaseChange{Op: storepb.LeaseChange_CHECKPOINTED, Id: 1, GrantIndex: b.leases[1].grant, Ttl: 600})
	if got := b.pass(0, func(m *machine) { p.done(m, b.index, nil) }); len(got) != 0 {
		t.Fatalf("effects %v", got)
	}
	if res := one[answer](t, b.pass(0, cleared)).result; res.TTLs[0] != 600 {
		t.Fatalf("answer %v", res)
	}
}

func TestDemotionFailsWhatWaits(t *testing.T) {
	b := primary(t, granted(1, 10))
	waiting := []*Request{b.request(Renew, 1), b.request(All), b.request(Remaining, 1)}
	r := one[ask](t, b.pass(0, func(m *machine) { m.onRequest(waiting[0]) })).round
	b.pass(0, func(m *machine) { m.onRequest(waiting[1]); m.onRequest(waiting[2]) })
	got := find[answer](b.pass(0, b.claimed(2)))
	if len(got) != 3 {
		t.Fatalf("%d answers", len(got))
	}
	for i, a := range got {
		if a.request != waiting[i] || !errors.Is(a.result.Err, errs.ErrNotPrimary) {
			t.Fatalf("answer %d: %v", i, a)
		}
	}
	if got := b.pass(0, b.indexed(r, b.index)); len(find[answer](got)) != 0 {
		t.Fatalf("a late read index made %v", got)
	}
}

func TestLostFeedEndsPrimacyAndTheClaim(t *testing.T) {
	b := primary(t, granted(1, 10))
	old := b.mine
	b.pass(0, (*machine).onFeedLost)
	if b.passes(1900 * time.Millisecond); !b.primary {
		t.Fatal("gave up at once")
	}
	if b.passes(300 * time.Millisecond); b.primary || b.mine != 0 {
		t.Fatal("primary without a feed")
	}
	// The feed comes back and still shows the old claim: a new one is needed,
	// behind what was proposed under the old one.
	back := &storepb.LeaseChanges{At: &logpb.LogID{Epoch: 1, Index: b.index}, Complete: true, Claim: old, ClaimMember: 1}
	effects := b.pass(0, func(m *machine) { m.onFeedOpen(1) }, func(m *machine) { m.onFeed(back) })
	if c := one[propose](t, effects).body.(*logpb.LessorClaim); b.primary || c.Expected != old {
		t.Fatalf("claim %v", c)
	}
}

func TestReopenedFeedKeepsTheTimeOfTheSameLife(t *testing.T) {
	b := primary(t)
	b.pass(0, b.changed(granted(1, 10), granted(2, 10), granted(3, 10)))
	b.passes(9 * time.Second)
	b.pass(0, (*machine).onFeedLost)
	same := &storepb.LeaseChange{Id: 1, GrantIndex: b.leases[1].grant, Ttl: 10}
	other := &storepb.LeaseChange{Id: 2, GrantIndex: b.leases[2].grant + 100, Ttl: 10}
	back := &storepb.LeaseChanges{
		At: &logpb.LogID{Epoch: 1, Index: b.index + 200}, Complete: true, Claim: b.mine, ClaimMember: 1,
		Changes: []*storepb.LeaseChange{same, other},
	}
	b.pass(0, func(m *machine) { m.onFeedOpen(1) }, func(m *machine) { m.onFeed(back) })
	if !b.primary || len(b.leases) != 2 || b.due.Len() != 2 {
		t.Fatalf("primary %v, %d leases, %d due", b.primary, len(b.leases), b.due.Len())
	}
	if got := expired(b.passes(1100 * time.Millisecond)); !slices.Equal(got, []int64{1}) {
		t.Fatalf("expired %v", got)
	}
}

func TestRequestsAreBounded(t *testing.T) {
	b := primary(t)
	for range requestsMax {
		b.onRequest(b.request(All))
	}
	got := one[answer](t, b.pass(0, func(m *machine) { m.onRequest(m.primaryRequest()) }))
	if !errors.Is(got.result.Err, errs.ErrTooManyRequests) {
		t.Fatal(got.result.Err)
	}
}

func (m *machine) primaryRequest() *Request {
	return &Request{Kind: All, ctx: context.Background(), done: make(chan Result, 1)}
}

func BenchmarkRenew(b *testing.B) {
	m := newMachine(testConfig(), testMetrics())
	m.primary = true
	const leases = 100_000
	ids := make([]int64, 0, 1000)
	for id := int64(0); id < leases; id++ {
		m.onChange(granted(id, 60))
	}
	b.ReportAllocs()
	next := int64(0)
	for b.Loop() {
		ids = ids[:0]
		for range 1000 {
			ids = append(ids, next*7919%leases)
			next++
		}
		q := &Request{Kind: Renew, IDs: ids, ctx: context.Background()}
		m.now += time.Millisecond
		m.onRequest(q)
		m.answer(q, 1)
		m.effects, m.renewal.arrived = m.effects[:0], m.renewal.arrived[:0]
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/renewal")
}

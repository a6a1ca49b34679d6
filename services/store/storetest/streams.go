package storetest

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

// follower reads a Follow stream up to an index and checks that it is gapless.
func (f *fixture) follow(after *logpb.LogID, to logid.Index) (all []string) {
	t := f.t
	t.Helper()
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	stream := must(f.store.Client.Follow(ctx, &storepb.FollowRequest{After: after}))(t)
	at := after.GetIndex()
	for at < uint64(to) {
		b := must(stream.Recv())(t)
		if b.PrevIndex > at || b.At.GetIndex() < at {
			t.Fatalf("batch %d to %d, follower at %d", b.PrevIndex, b.At.GetIndex(), at)
		}
		at = b.At.GetIndex()
		for _, r := range b.Revisions {
			all = append(all, describe(t, r)...)
		}
	}
	return all
}

func followIsGapless(t *testing.T, f *fixture) {
	start := f.log.Last()
	var want []string
	for i := range 50 {
		rev := f.session.Put("k", fmt.Sprint(i))
		s := fmt.Sprintf("%d put k=%d", rev, i)
		if i > 0 {
			s += fmt.Sprintf(" was %d@%d", i-1, rev-1)
		}
		want = append(want, s)
	}
	f.log.Append(nil)
	same(t, "followed", f.follow(start.Proto(), f.log.Last().Index), want)
	middle := logid.ID{Epoch: start.Epoch, Term: start.Term, Index: start.Index + 40}
	same(t, "followed from the middle", f.follow(middle.Proto(), f.log.Last().Index), want[40:])
	// Another epoch's position is not here.
	stream := must(f.store.Client.Follow(f.ctx, &storepb.FollowRequest{After: &logpb.LogID{Epoch: 9, Index: 3, Term: 1}}))(t)
	_, err := stream.Recv()
	isError(t, "follow from another epoch", err, errs.ErrFollowBehind)
}

func followFromNowhereStartsNow(t *testing.T, f *fixture) {
	f.session.Put("k", "1")
	stream := must(f.store.Client.Follow(f.ctx, &storepb.FollowRequest{}))(t)
	first := must(stream.Recv())(t)
	if first.At.GetIndex() != uint64(f.log.Last().Index) || first.Revision != 2 || len(first.Revisions) > 0 || first.ClusterId != ClusterID {
		t.Fatalf("first batch %v", first)
	}
	second := must(stream.Recv())(t) // an idle store's heartbeat
	if second.PrevIndex != first.At.GetIndex() || second.At.GetIndex() != first.At.GetIndex() {
		t.Fatalf("heartbeat %v", second)
	}
	f.session.Put("k", "2")
	var b *buspb.Batch
	for b = must(stream.Recv())(t); len(b.Revisions) == 0; b = must(stream.Recv())(t) {
	}
	same(t, "after the start", describe(t, b.Revisions[0]), []string{"3 put k=2 was 1@2"})
}

// outcomes reads a session's outcomes after a number, n of them.
func (f *fixture) outcomes(session, after uint64, n int) (all []string) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	stream := must(f.store.Client.Outcomes(ctx, &storepb.OutcomesRequest{Session: session, AfterSeq: after}))(f.t)
	for len(all) < n {
		b := must(stream.Recv())(f.t)
		for _, o := range b.Outcomes {
			all = append(all, fmt.Sprintf("%d %s %d %s", o.Seq, o.Fate, o.Revision, o.Error))
		}
	}
	return all
}

func outcomesCanBeReadAgain(t *testing.T, f *fixture) {
	s := f.session
	s.Propose(Put("a", "1"), Put("", "1"), Delete("none", ""))
	want := []string{"1 APPLIED 2 ", "2 APPLIED 2 etcdserver: key is not provided", "3 APPLIED 2 "}
	same(t, "outcomes", f.outcomes(s.ID, 0, 3), want)
	same(t, "outcomes from the second", f.outcomes(s.ID, 1, 2), want[1:])
	// A transaction's ranges are read when the outcome is.
	s.Propose(Command(logpb.Command_TXN, &etcdserverpb.TxnRequest{Success: []*etcdserverpb.RequestOp{
		{Request: &etcdserverpb.RequestOp_RequestPut{RequestPut: &etcdserverpb.PutRequest{Key: []byte("b"), Value: []byte("2")}}},
		{Request: &etcdserverpb.RequestOp_RequestRange{RequestRange: &etcdserverpb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("c")}}},
	}}), Put("a", "later"))
	for range 3 {
		s.Outcome()
	}
	var response etcdserverpb.TxnResponse
	if err := proto.Unmarshal(s.Outcome().Body, &response); err != nil {
		t.Fatal(err)
	}
	r := response.Responses[1].GetResponseRange()
	if r.Count != 2 || string(r.Kvs[0].Value) != "1" || string(r.Kvs[1].Value) != "2" || r.Header.Revision != 3 {
		t.Errorf("range within the transaction: %v", r)
	}
}

func ackedOutcomesAreForgotten(t *testing.T, f *fixture) {
	s := f.session
	s.Propose(Put("a", "1"), Put("a", "2"))
	s.Outcome()
	s.Outcome()
	s.Acked = 1
	s.Put("a", "3")
	same(t, "outcomes", f.outcomes(s.ID, 0, 3), []string{"1 LOST 0 ", "2 APPLIED 3 ", "3 APPLIED 4 "})
}

func unknownSessionIsSaid(t *testing.T, f *fixture) {
	s := f.session
	s.Put("a", "1")
	// The owner opens another session, which closes this one.
	OpenSession(t, f.ctx, f.log, f.store.Client, &logpb.SessionOpen{Nonce: []byte("other"), Owner: "gateway"})
	s.Propose(Put("a", "2"))
	if o := s.Outcome(); o.Error != unknownSession || o.Seq != 2 {
		t.Errorf("command of a closed session: %v", o)
	}
	stream := must(f.store.Client.Outcomes(f.ctx, &storepb.OutcomesRequest{Session: uint64(f.log.Last().Index)}))(t)
	_, err := stream.Recv()
	isError(t, "outcomes of what is no session", err, errs.ErrUnknownSession)
	if r, _ := f.rangeOf(&etcdserverpb.RangeRequest{Key: []byte("a")}); string(r.Kvs[0].Value) != "1" {
		t.Errorf("a closed session wrote %s", r.Kvs[0].Value)
	}
}

func gapIsSaid(t *testing.T, f *fixture) {
	s := f.session
	s.Put("a", "1")
	s.Next += 3
	s.Propose(Put("a", "5"))
	if o := s.Outcome(); o.Fate != storepb.Outcome_GAP || o.Seq != 5 {
		t.Errorf("beyond the next number: %v", o)
	}
	s.Next = 1
	s.Propose(Put("a", "again"), Put("a", "2"))
	if o := s.Outcome(); o.Seq != 2 || o.Revision != 3 {
		t.Errorf("after starting over: %v", o)
	}
}

func leasesAreFed(t *testing.T, f *fixture) {
	s := f.session
	grant := func(id int64) uint64 {
		return s.Do(Command(logpb.Command_LEASE_GRANT, &etcdserverpb.LeaseGrantRequest{ID: id, TTL: 10 * id})).Index
	}
	g1, g2 := grant(1), grant(2)
	claim := s.Do(Command(logpb.Command_LESSOR_CLAIM, &logpb.LessorClaim{Member: 4})).Index
	s.Put("k", "1") // its outcome says that the claim is applied
	stream := must(f.store.Client.Leases(f.ctx, &storepb.LeasesRequest{}))(t)
	var got []string
	read := func(until func(*storepb.LeaseChanges) bool) *storepb.LeaseChanges {
		for {
			m := must(stream.Recv())(t)
			for _, c := range m.Changes {
				got = append(got, fmt.Sprintf("%s %d grant=%d ttl=%d remaining=%d", c.Op, c.Id, c.GrantIndex, c.Ttl, c.Remaining))
			}
			if until(m) {
				return m
			}
		}
	}
	m := read(func(m *storepb.LeaseChanges) bool { return m.Complete })
	if m.Claim != claim || m.ClaimMember != 4 || m.Revision != 2 {
		t.Errorf("records are of %v, want claim %d", m, claim)
	}
	s.Do(Command(logpb.Command_LEASE_CHECKPOINT, &logpb.LeaseCheckpoint{Claim: claim, Leases: []*logpb.LeaseCheckpoint_Remaining{{Lease: &logpb.LeaseFence{Id: 1, GrantIndex: g1}, Seconds: 3}}}))
	s.Do(Command(logpb.Command_LEASE_EXPIRE, &logpb.LeaseExpire{Claim: claim, Leases: []*logpb.LeaseFence{{Id: 1, GrantIndex: g2}, {Id: 2, GrantIndex: g2}}}))
	last := f.log.Append(nil)
	read(func(m *storepb.LeaseChanges) bool { return m.At.GetIndex() == last })
	same(t, "feed", got, []string{
		fmt.Sprintf("GRANTED 1 grant=%d ttl=10 remaining=0", g1),
		fmt.Sprintf("GRANTED 2 grant=%d ttl=20 remaining=0", g2),
		fmt.Sprintf("CHECKPOINTED 1 grant=%d ttl=10 remaining=3", g1),
		fmt.Sprintf("REVOKED 2 grant=%d ttl=20 remaining=0", g2),
	})
}

func statusNamesGateways(t *testing.T, f *fixture) {
	f.session.Put("k", "1")
	st := must(f.store.Client.GetStatus(f.ctx, &storepb.GetStatusRequest{}))(t)
	if st.Revision != 2 || st.ClusterId != ClusterID || st.MemberId != MemberID || st.CompactRevision != -1 || st.Keys != 1 || logid.FromProto(st.Applied) != f.log.Last() {
		t.Errorf("status %v", st)
	}
	if len(st.Gateways) != 1 || st.Gateways[0].Name != "gateway" || st.Gateways[0].Member != 5 || st.Gateways[0].ClientUrls[0] != "http://client" || st.Gateways[0].Session != f.session.ID {
		t.Errorf("gateways %v", st.Gateways)
	}
}

func restartLosesNothingApplied(t *testing.T, f *fixture) {
	if f.store.Restart == nil {
		t.Skip("this store keeps nothing")
	}
	s := f.session
	for i := range 20 {
		s.Put(fmt.Sprintf("k%d", i), "1")
	}
	hash := must(f.store.Client.Hash(f.ctx, &storepb.HashRequest{}))(t)
	f.store.Client = f.store.Restart()
	// In doubt, the proposer proposes again.
	f.log.AppendBatch(&logpb.Batch{Session: s.ID, FirstSeq: 19, Commands: []*logpb.Command{Put("k18", "1"), Put("k19", "1")}})
	if r, result := f.rangeOf(&etcdserverpb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), CountOnly: true}); r.Count != 20 || result.Revision != 21 {
		t.Errorf("after a restart: %d keys at revision %d", r.Count, result.Revision)
	}
	again := must(f.store.Client.Hash(f.ctx, &storepb.HashRequest{}))(t)
	if again.Hash != hash.Hash {
		t.Errorf("hash %v before the restart, %v after it", hash, again)
	}
}

func syncedIsReported(t *testing.T, f *fixture) {
	f.session.Put("k", "1")
	last := f.log.Last()
	for {
		applied, synced := f.log.Progress()
		if applied == last && synced == last {
			return
		}
		if err := f.log.Wait(f.ctx); err != nil {
			t.Fatalf("applied %s, synced %s, want %s: %v", applied, synced, last, err)
		}
	}
}

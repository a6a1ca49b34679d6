// Package leasetest is the conformance suite of the Lessor service: what
// package lease promises, case by case, against any cluster of lessors,
// reached by calls or over a wire.
package leasetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quartet-kv/quartet/proto/leasepb"
	"github.com/quartet-kv/quartet/services/errs"
)

// Cluster is what the suite runs against. All times are the lessors' own.
type Cluster struct {
	// Lessors of all members, at least two.
	Lessors []leasepb.LessorClient
	// Grant and Revoke change the state and return when it is changed.
	Grant  func(id, ttl int64)
	Revoke func(id int64)
	// Exists tells whether the state has the lease now.
	Exists func(id int64) bool
	// Pass lets time pass.
	Pass func(d time.Duration)
	// Lead makes the member of Lessors[i] the raft leader.
	Lead func(i int)
	// GraceMax is the most that a lease lives beyond its time, whatever for.
	GraceMax time.Duration
}

const (
	patience = 20 * time.Second // of real time, for anything
	// expiryStep and changeStep are the time that passes between two looks at
	// whether a lease is gone, or who is primary. The lessors' time may be made
	// to run much faster than they talk to each other, so the latter is small.
	expiryStep = 100 * time.Millisecond
	changeStep = time.Millisecond
)

// Run runs every case on a cluster of its own.
func Run(t *testing.T, open func(t *testing.T) *Cluster) {
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"one lessor answers and the others say that they are not primary", onePrimary},
		{"keep-alives are answered in order and with 0 for what is missing", answersInOrder},
		{"a revoked lease is never renewed", revokedIsGone},
		{"a lease lives its time and then no more", livesItsTime},
		{"a renewal gives the full time again", renewalGivesFullTime},
		{"remaining time is below what was granted and -1 for what is missing", remaining},
		{"a list begins with the soonest to expire", listIsSorted},
		{"a new primary gives every lease its time again", changeOfPrimary},
		{"a lease granted anew has a life of its own", grantedAnew},
		{"many leases expire together", manyExpire},
		{"a message has a limit", tooMany},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
			defer cancel()
			c.test(&suite{t: t, Cluster: open(t), ctx: ctx})
		})
	}
}

type suite struct {
	*Cluster
	t   *testing.T
	ctx context.Context
}

// eventually waits for a condition, letting a little time pass before each try.
func (s *suite) eventually(what string, step time.Duration, ok func() bool) {
	s.t.Helper()
	for began := time.Now(); !ok(); {
		if time.Since(began) > patience {
			s.t.Fatalf("not within %v: %s", patience, what)
		}
		s.Pass(step)
		time.Sleep(time.Millisecond) // between two looks
	}
}

// grant grants leases of one TTL; the primary counts their time when it returns.
func (s *suite) grant(ttl int64, ids ...int64) {
	s.t.Helper()
	for _, id := range ids {
		s.Grant(id, ttl)
	}
	if _, err := s.lessor().TimeToLive(s.ctx, &leasepb.TimeToLiveRequest{Ids: ids}); err != nil {
		s.t.Fatal(err)
	}
}

// primary waits for one and returns its place.
func (s *suite) primary() int {
	s.t.Helper()
	found := -1
	s.eventually("a primary", changeStep, func() bool {
		for i, l := range s.Lessors {
			if _, err := l.List(s.ctx, &leasepb.ListRequest{}); err == nil {
				found = i
				return true
			}
		}
		return false
	})
	return found
}

func (s *suite) lessor() leasepb.LessorClient { return s.Lessors[s.primary()] }

// renew sends messages on one stream and returns the answers.
func (s *suite) renew(messages ...[]int64) [][]int64 {
	s.t.Helper()
	stream, err := s.lessor().KeepAlive(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, ids := range messages {
		if err := stream.Send(&leasepb.KeepAliveBatch{Ids: ids}); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		s.t.Fatal(err)
	}
	var out [][]int64
	for range messages {
		res, err := stream.Recv()
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, res.Ttls)
	}
	return out
}

func (s *suite) expectRenewed(want [][]int64, messages ...[]int64) {
	s.t.Helper()
	if got := s.renew(messages...); !slices.EqualFunc(got, want, slices.Equal) {
		s.t.Fatalf("keep-alives of %v: %v, want %v", messages, got, want)
	}
}

func (s *suite) expectAlive(id int64, when string) {
	s.t.Helper()
	if !s.Exists(id) {
		s.t.Fatalf("lease %d is gone %s", id, when)
	}
}

func (s *suite) expectExpired(ids ...int64) {
	s.t.Helper()
	for _, id := range ids {
		s.eventually("the expiry of a lease", expiryStep, func() bool { return !s.Exists(id) })
	}
}

func onePrimary(s *suite) {
	primary := s.primary()
	for i, l := range s.Lessors {
		_, err := l.List(s.ctx, &leasepb.ListRequest{})
		_, ttlErr := l.TimeToLive(s.ctx, &leasepb.TimeToLiveRequest{Ids: []int64{1}})
		if i == primary {
			if err != nil || ttlErr != nil {
				s.t.Errorf("primary: %v, %v", err, ttlErr)
			}
			continue
		}
		if !errors.Is(err, errs.ErrNotPrimary) || !errors.Is(ttlErr, errs.ErrNotPrimary) {
			s.t.Errorf("lessor %d: %v, %v", i, err, ttlErr)
		}
		stream, err := l.KeepAlive(s.ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		_ = stream.Send(&leasepb.KeepAliveBatch{Ids: []int64{1}}) // its error shows in Recv
		if _, err := stream.Recv(); !errors.Is(err, errs.ErrNotPrimary) {
			s.t.Errorf("lessor %d: keep-alive: %v", i, err)
		}
		if st, err := l.GetStatus(s.ctx, &leasepb.GetStatusRequest{}); err != nil || st.Primary {
			s.t.Errorf("lessor %d: status %v, %v", i, st, err)
		}
	}
}

func answersInOrder(s *suite) {
	s.grant(10, 1)
	s.grant(20, 2)
	s.grant(30, -3)
	s.expectRenewed([][]int64{{10, 0, 20}, {}, {30}, {0}}, []int64{1, 99, 2}, nil, []int64{-3}, []int64{98})
}

func revokedIsGone(s *suite) {
	s.grant(10, 1)
	s.expectRenewed([][]int64{{10}}, []int64{1})
	s.Revoke(1)
	s.expectRenewed([][]int64{{0}}, []int64{1})
	s.grant(20, 1)
	s.expectRenewed([][]int64{{20}}, []int64{1})
}

func livesItsTime(s *suite) {
	s.primary()
	s.grant(10, 1)
	s.Pass(9500 * time.Millisecond)
	s.expectAlive(1, "half a second early")
	s.expectExpired(1)
	s.expectRenewed([][]int64{{0}}, []int64{1})
}

func renewalGivesFullTime(s *suite) {
	s.grant(10, 1)
	for range 3 {
		s.Pass(8 * time.Second)
		s.expectRenewed([][]int64{{10}}, []int64{1})
	}
	s.Pass(9500 * time.Millisecond)
	s.expectAlive(1, "half a second early, after renewals")
	s.expectExpired(1)
}

func remaining(s *suite) {
	l := s.lessor()
	s.grant(10, 1)
	s.Pass(4 * time.Second)
	res, err := l.TimeToLive(s.ctx, &leasepb.TimeToLiveRequest{Ids: []int64{1, 99}})
	if err != nil {
		s.t.Fatal(err)
	}
	least, most := int64(5000), 6000+s.GraceMax.Milliseconds()
	if len(res.RemainingMs) != 2 || res.RemainingMs[0] < least || res.RemainingMs[0] > most || res.RemainingMs[1] != -1 ||
		!slices.Equal(res.Granted, []int64{10, 0}) {
		s.t.Fatalf("got %v", res)
	}
}

func listIsSorted(s *suite) {
	l := s.lessor()
	s.grant(300, 1)
	s.grant(100, 2)
	s.grant(200, 3)
	res, err := l.List(s.ctx, &leasepb.ListRequest{})
	if err != nil || !slices.Equal(res.Ids, []int64{2, 3, 1}) {
		s.t.Fatalf("got %v, %v", res, err)
	}
}

func changeOfPrimary(s *suite) {
	old := s.primary()
	s.grant(10, 1)
	s.Pass(8 * time.Second)
	next := (old + 1) % len(s.Lessors)
	s.Lead(next)
	s.eventually("the leader's lessor is primary", changeStep, func() bool {
		st, err := s.Lessors[next].GetStatus(s.ctx, &leasepb.GetStatusRequest{})
		return err == nil && st.Primary
	})
	s.Pass(9500 * time.Millisecond)
	s.expectAlive(1, "early under a new primary")
	s.eventually("the old primary says that it is none", changeStep, func() bool {
		_, err := s.Lessors[old].List(s.ctx, &leasepb.ListRequest{})
		return errors.Is(err, errs.ErrNotPrimary)
	})
	s.expectExpired(1)
}

func grantedAnew(s *suite) {
	s.primary()
	s.grant(5, 1)
	s.Pass(4 * time.Second)
	s.Revoke(1)
	s.grant(10, 1)
	s.Pass(9500 * time.Millisecond)
	s.expectAlive(1, "early in its second life")
	s.expectExpired(1)
}

func manyExpire(s *suite) {
	s.primary()
	const many = 1500
	ids := make([]int64, many)
	for i := range ids {
		ids[i] = int64(i + 1)
	}
	s.grant(600, many+1)
	s.grant(5, ids...)
	s.Pass(4500 * time.Millisecond)
	s.expectAlive(1, "early among many")
	s.expectExpired(ids...)
	s.expectAlive(many+1, "with others that were due")
}

func tooMany(s *suite) {
	stream, err := s.lessor().KeepAlive(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = stream.Send(&leasepb.KeepAliveBatch{Ids: make([]int64, 1<<20)}) // its error shows in Recv
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		s.t.Fatal(err)
	}
}

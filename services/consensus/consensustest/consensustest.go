// Package consensustest checks that a cluster keeps the promise of the
// Consensus service as package consensus writes it down. The suite knows
// nothing of how members are reached, so it runs in process and over the
// network alike.
package consensustest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
)

// Member is one member of the cluster under test.
type Member struct {
	Client consensuspb.ConsensusClient
	// Stop stops the member in good order and waits for it. It is called at most
	// once; the cluster's own end must bear both.
	Stop func()
}

// Cluster is a cluster under test: three members, no stores attached.
type Cluster struct {
	Members []Member
	// PayloadBytesMax is the largest payload that it takes.
	PayloadBytesMax int
}

// patience bounds each test's waits.
const patience = 30 * time.Second

// Run runs the suite; open starts a new cluster, which ends with its test.
func Run(t *testing.T, open func(t *testing.T) Cluster) {
	for _, c := range []struct {
		name string
		run  func(*suite)
	}{
		{"ObserveAnswersAtOnce", (*suite).observeAnswersAtOnce},
		{"MembersAgreeOnTheLeader", (*suite).membersAgreeOnTheLeader},
		{"OnlyTheLeaderTakesProposalsAndReads", (*suite).onlyTheLeaderTakes},
		{"PayloadsBecomeEntriesInOrderOnEveryMember", (*suite).payloadsInOrder},
		{"DeliverContinuesAfterAnyPosition", (*suite).deliverContinues},
		{"DeliverRefusesOtherHistories", (*suite).deliverRefuses},
		{"DeliverNeedsAStart", (*suite).deliverNeedsAStart},
		{"ReadIndexCoversWhatWasDelivered", (*suite).readIndexCovers},
		{"RefusedPayloadEndsTheStream", (*suite).refusedPayloadEnds},
		{"StreamEndsWithItsTerm", (*suite).streamEndsWithItsTerm},
		{"NothingDeliveredIsLostWithTheLeader", (*suite).nothingLost},
		{"ProgressIsReported", (*suite).progressIsReported},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			c.run(&suite{t, ctx, open(t)})
		})
	}
}

type suite struct {
	*testing.T
	ctx context.Context
	Cluster
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// observe receives views of a member until ok likes one.
func (s *suite) observe(m Member, ok func(*consensuspb.Status) bool) *consensuspb.Status {
	s.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	stream, err := m.Client.Observe(ctx, &consensuspb.ObserveRequest{})
	s.must(err)
	for {
		st, err := stream.Recv()
		s.must(err)
		if ok(st) {
			return st
		}
	}
}

// leader is the index of the member that leads.
func (s *suite) leader(among ...int) int {
	s.Helper()
	if among == nil {
		among = []int{0, 1, 2}
	}
	id := s.observe(s.Members[among[0]], func(st *consensuspb.Status) bool {
		if st.Leader == 0 {
			return false
		}
		for _, i := range among {
			if s.status(i).MemberId == st.Leader {
				return true
			}
		}
		return false
	}).Leader
	for _, i := range among {
		if s.status(i).MemberId == id {
			s.observe(s.Members[i], func(st *consensuspb.Status) bool { return st.Leader == id })
			return i
		}
	}
	panic("not reached")
}

func (s *suite) status(i int) *consensuspb.Status {
	s.Helper()
	st, err := s.Members[i].Client.GetStatus(s.ctx, &consensuspb.GetStatusRequest{})
	s.must(err)
	return st
}

// others are the members but for one.
func (s *suite) others(than int) []int {
	var out []int
	for i := range s.Members {
		if i != than {
			out = append(out, i)
		}
	}
	return out
}

// propose opens a stream and waits for its term.
func (s *suite) propose(i int) (consensuspb.Consensus_ProposeClient, uint64) {
	s.Helper()
	stream, err := s.Members[i].Client.Propose(s.ctx)
	s.must(err)
	r, err := stream.Recv()
	s.must(err)
	return stream, r.Term
}

func send(stream consensuspb.Consensus_ProposeClient, payloads ...string) error {
	req := &consensuspb.ProposeRequest{}
	for _, p := range payloads {
		req.Payloads = append(req.Payloads, []byte(p))
	}
	return stream.Send(req)
}

// delivery is an attached store.
type delivery struct {
	s      *suite
	stream consensuspb.Consensus_DeliverClient
	last   uint64 // index
	term   uint64
	seen   []*consensuspb.Entry

	publish bool // as last told
}

// attach opens a delivery after a position.
func (s *suite) attach(i int, after *logpb.LogID) *delivery {
	s.Helper()
	stream, err := s.Members[i].Client.Deliver(s.ctx)
	s.must(err)
	s.must(stream.Send(&consensuspb.DeliverRequest{Start: &consensuspb.DeliverStart{After: after, Store: fmt.Sprint("store-", i)}}))
	return &delivery{s: s, stream: stream, last: after.GetIndex(), term: after.GetTerm()}
}

// until receives entries up to the one with this payload, checking each.
func (d *delivery) until(payload string) []*consensuspb.Entry {
	d.s.Helper()
	for {
		r, err := d.stream.Recv()
		d.s.must(err)
		d.publish = r.Publish
		for _, e := range r.Entries {
			if e.Index != d.last+1 || e.Term < d.term {
				d.s.Fatalf("entry %d of term %d after %d of term %d", e.Index, e.Term, d.last, d.term)
			}
			d.last, d.term = e.Index, e.Term
			d.seen = append(d.seen, e)
		}
		for _, e := range r.Entries {
			if string(e.Payload) == payload {
				return d.seen
			}
		}
	}
}

func payloads(entries []*consensuspb.Entry) []string {
	var out []string
	for _, e := range entries {
		if len(e.Payload) > 0 {
			out = append(out, string(e.Payload))
		}
	}
	return out
}

func numbered(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint("payload-", i+1)
	}
	return out
}

func (s *suite) wantErr(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("got %v, want %v", err, want)
	}
}

func (s *suite) wantCode(err error, want codes.Code) {
	s.Helper()
	if status.Code(err) != want {
		s.Errorf("got %v, want %v", err, want)
	}
}

// large is a payload just above the limit.
func (s *suite) large() string { return string(bytes.Repeat([]byte{'x'}, s.PayloadBytesMax+1)) }

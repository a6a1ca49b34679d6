package consensusd_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/quartet-kv/quartet/consensusd"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/errs"
)

// propose sends payloads on a stream of its own and waits until they are
// delivered to the leader's store, which is how a client learns of a commit.
func propose(t *testing.T, m *member, payloads ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(m.cluster.ctx)
	defer cancel()
	stream, err := m.client().Propose(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	req := &consensuspb.ProposeRequest{}
	for _, p := range payloads {
		req.Payloads = append(req.Payloads, []byte(p))
	}
	if err := stream.Send(req); err != nil {
		t.Fatal(err)
	}
	m.cluster.eventually("delivery of what was proposed", func() bool { return m.store.has(payloads[len(payloads)-1]) })
}

func TestLoneMemberLeadsAtOnce(t *testing.T) {
	begin := time.Now()
	// An election timeout that would not pass within the test.
	c := newCluster(t, 1, func(cfg *consensusd.Config) { cfg.HeartbeatInterval, cfg.ElectionTimeout = time.Second, 60*time.Second })
	m := c.leader()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("a lone member led after %v", took)
	}
	propose(t, m, "a", "b")
	if got := m.store.payloads(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("delivered %q", got)
	}
}

func TestFirstElectionDoesNotWaitOutTheTimeout(t *testing.T) {
	begin := time.Now()
	c := newCluster(t, 3, func(cfg *consensusd.Config) { cfg.ElectionTimeout = 100 * cfg.HeartbeatInterval * 6 })
	c.leader()
	if took, timeout := time.Since(begin), c.members[0].cfg.ElectionTimeout; took > timeout/2 {
		t.Errorf("the first leader came after %v, with an election timeout of %v", took, timeout)
	}
}

func TestDeliversToEveryStoreInOneOrder(t *testing.T) {
	c := newCluster(t, 3)
	var want []string
	for i := range 100 {
		want = append(want, fmt.Sprint("p", i))
	}
	propose(t, c.leader(), want...)
	for _, m := range c.members {
		c.eventually("delivery to "+m.addr, func() bool { return len(m.store.payloads()) == len(want) })
		if got := m.store.payloads(); !slices.Equal(got, want) {
			t.Errorf("%s: delivered %q", m.addr, got)
		}
	}
}

func TestOnlyTheLeaderTakesProposalsAndReads(t *testing.T) {
	c := newCluster(t, 3)
	lead := c.leader()
	for _, m := range c.members {
		stream, err := m.client().Propose(c.ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, perr := stream.Recv()
		_, rerr := m.client().ReadIndex(c.ctx, &consensuspb.ReadIndexRequest{})
		if m == lead {
			if perr != nil || rerr != nil {
				t.Errorf("leader refused: %v, %v", perr, rerr)
			}
			continue
		}
		if !errors.Is(perr, errs.ErrNotLeader) || !errors.Is(rerr, errs.ErrNotLeader) {
			t.Errorf("follower answered %v, %v", perr, rerr)
		}
	}
}

func TestReadIndexCoversWhatWasAcknowledged(t *testing.T) {
	c := newCluster(t, 3)
	lead := c.leader()
	for i := range 20 {
		propose(t, lead, fmt.Sprint("x", i))
		at := lead.store.position()
		r, err := lead.client().ReadIndex(c.ctx, &consensuspb.ReadIndexRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if r.Read.Index < uint64(at.Index) {
			t.Fatalf("read index %d after delivery of %d", r.Read.Index, at.Index)
		}
	}
}

func TestStreamEndsWithItsTerm(t *testing.T) {
	c := newCluster(t, 3)
	old := c.leader()
	stream, err := old.client().Propose(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if st := old.status(); first.Term != st.Term {
		t.Errorf("stream of term %d while the term is %d", first.Term, st.Term)
	}
	old.halt()
	if _, err := stream.Recv(); !errors.Is(err, errs.ErrNotLeader) && !errors.Is(err, errs.ErrStopped) {
		t.Errorf("the stream ended with %v", err)
	}
	if next := c.leader(); next == old {
		t.Error("a member that is down leads")
	}
}

func TestGracefulStopHandsOver(t *testing.T) {
	// With this election timeout only a handover gives a new leader in time.
	c := newCluster(t, 3, func(cfg *consensusd.Config) {
		cfg.ElectionTimeout = 60 * time.Second
		cfg.HeartbeatInterval = 100 * time.Millisecond
	})
	old := c.leader()
	begin := time.Now()
	old.halt()
	c.leader()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the next leader came after %v", took)
	}
}

func TestLeaderNamesOnePublisher(t *testing.T) {
	c := newCluster(t, 3)
	lead := c.leader()
	id := lead.status().MemberId
	c.eventually("the leader's store publishes, and no other", func() bool {
		for _, m := range c.members {
			m.store.mu.Lock()
			r := m.store.response
			m.store.mu.Unlock()
			if r == nil || r.Publish != (m == lead) || m.status().Publisher != id {
				return false
			}
		}
		return true
	})
}

func TestObserveShowsChanges(t *testing.T) {
	c := newCluster(t, 3)
	lead := c.leader()
	var other *member
	for _, m := range c.members {
		if m != lead {
			other = m
		}
	}
	stream, err := other.client().Observe(c.ctx, &consensuspb.ObserveRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.Leader != lead.status().MemberId || len(first.Members) != 3 {
		t.Fatalf("first status %v, %v", first, err)
	}
	lead.halt()
	for {
		st, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if st.Term > first.Term && st.Leader != 0 && st.Leader != first.Leader {
			return
		}
	}
}

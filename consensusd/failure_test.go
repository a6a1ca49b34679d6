package consensusd_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quartet-kv/quartet/consensusd"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/errs"
)

func TestKilledLeaderLosesNothing(t *testing.T) {
	c := newCluster(t, 3)
	var want []string
	for round := range 4 {
		lead := c.leader()
		for i := range 20 {
			want = append(want, fmt.Sprintf("%d-%d", round, i))
		}
		propose(t, lead, want[len(want)-20:]...)
		lead.kill()
		next := c.leader()
		want = append(want, fmt.Sprintf("%d-while-down", round))
		propose(t, next, want[len(want)-1])
		lead.start()
	}
	for _, m := range c.members {
		c.eventually("delivery to "+m.addr, func() bool { return len(m.store.payloads()) >= len(want) })
		if got := m.store.payloads(); !slices.Equal(got, want) {
			t.Errorf("%s: delivered %q, want %q", m.addr, got, want)
		}
	}
}

func TestRestartOfAllContinues(t *testing.T) {
	for name, stop := range map[string]func(*member){"halt": (*member).halt, "kill": (*member).kill} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 3)
			propose(t, c.leader(), "before")
			term := c.members[0].status().Term
			for _, m := range c.members {
				stop(m)
			}
			for _, m := range c.members {
				m.start()
			}
			lead := c.leader()
			propose(t, lead, "after")
			if st := lead.status(); st.Term <= term || len(st.Members) != 3 {
				t.Errorf("after the restart: %v", st)
			}
			for _, m := range c.members {
				c.eventually("delivery to "+m.addr, func() bool { return slices.Equal(m.store.payloads(), []string{"before", "after"}) })
			}
		})
	}
}

func TestEmptyStoreGetsEverythingAgain(t *testing.T) {
	c := newCluster(t, 1)
	m := c.leader()
	propose(t, m, "a", "b")
	m.halt()
	m.store = newStore(m)
	m.start()
	c.leader()
	c.eventually("delivery from the beginning", func() bool { return slices.Equal(m.store.payloads(), []string{"a", "b"}) })
}

func TestOtherIdentityIsRefused(t *testing.T) {
	c := newCluster(t, 1)
	m := c.leader()
	m.halt()
	m.cfg.ClusterToken = "another"
	_, err := consensusd.New(m.cfg, consensusd.Deps{Log: discard, Metrics: newRegistry(), Dialer: c.fabric})
	if err == nil || !strings.Contains(err.Error(), "--cluster-token") {
		t.Errorf("got %v", err)
	}
}

func TestIsolatedLeaderStepsDown(t *testing.T) {
	c := newCluster(t, 3)
	old := c.leader()
	stream, err := old.client().Propose(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	// It still hears its peers, but nobody hears it.
	old.gate.shut.Store(true)
	if err := stream.Send(&consensuspb.ProposeRequest{Payloads: [][]byte{[]byte("lost")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := old.client().ReadIndex(c.ctx, &consensuspb.ReadIndexRequest{}); !errors.Is(err, errs.ErrNotLeader) {
		t.Errorf("read index of an isolated leader: %v", err)
	}
	if _, err := stream.Recv(); !errors.Is(err, errs.ErrNotLeader) {
		t.Errorf("stream of an isolated leader: %v", err)
	}
	var next *member
	c.eventually("another leader", func() bool {
		for _, m := range c.members {
			if m != old && m.status().Role == consensuspb.Status_LEADER {
				next = m
				return true
			}
		}
		return false
	})
	propose(t, next, "kept")
	old.gate.shut.Store(false)
	c.eventually("what was lost is not delivered, what was kept is", func() bool {
		return slices.Equal(old.store.payloads(), []string{"kept"})
	})
}

func TestUncommittedIsBounded(t *testing.T) {
	c := newCluster(t, 3, func(cfg *consensusd.Config) {
		cfg.HeartbeatInterval, cfg.ElectionTimeout = 100*time.Millisecond, 60*time.Second
		cfg.UncommittedBytesMax, cfg.PayloadBytesMax = 1<<20, 1<<20
	})
	lead := c.leader()
	stream, err := lead.client().Propose(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	lead.gate.shut.Store(true)
	for stream.Send(&consensuspb.ProposeRequest{Payloads: [][]byte{make([]byte, 256<<10)}}) == nil {
	}
	if _, err := stream.Recv(); !errors.Is(err, errs.ErrTooManyRequests) {
		t.Errorf("a leader without a quorum took what it liked: %v", err)
	}
}

func TestSlowStoreHoldsUpNobody(t *testing.T) {
	c := newCluster(t, 1)
	m := c.leader()
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	slow, err := m.client().Deliver(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.Send(&consensuspb.DeliverRequest{Start: &consensuspb.DeliverStart{Store: "slow"}}); err != nil {
		t.Fatal(err)
	}
	// More than a stream, its batches and the ring hold.
	payload := strings.Repeat("x", 64<<10)
	for i := range 400 {
		propose(t, m, fmt.Sprint(i, payload))
	}
	seen := 0
	for seen < 400 {
		r, err := slow.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range r.Entries {
			if len(e.Payload) == 0 {
				continue
			}
			if !strings.HasPrefix(string(e.Payload), fmt.Sprint(seen, "x")) {
				t.Fatalf("payload %d is %.10s", seen, e.Payload)
			}
			seen++
		}
	}
}

func TestTruncationWaitsForEveryStore(t *testing.T) {
	c := newCluster(t, 3, func(cfg *consensusd.Config) { cfg.LogTailEntries = 10 })
	lead := c.leader()
	var down *member
	for _, m := range c.members {
		if m != lead {
			down = m
		}
	}
	many := func(prefix string) (out []string) {
		for i := range 300 {
			out = append(out, fmt.Sprint(prefix, i))
		}
		return out
	}
	propose(t, lead, many("a")...)
	for _, m := range c.members {
		c.eventually("truncation of "+m.addr, func() bool { return m.status().First > 100 })
	}
	down.kill()
	from := uint64(down.store.position().Index)
	propose(t, lead, many("b")...)
	propose(t, lead, "c")
	if st := lead.status(); st.First > from {
		t.Fatalf("log truncated to %d while a store is at %d", st.First, from)
	}
	down.start()
	for _, m := range c.members {
		c.eventually("truncation of "+m.addr, func() bool { return m.status().First > from })
		c.eventually("delivery to "+m.addr, func() bool { return len(m.store.payloads()) == 601 })
	}
}

func TestLogAtItsCapRefuses(t *testing.T) {
	c := newCluster(t, 1, func(cfg *consensusd.Config) {
		cfg.LogBytesMax, cfg.LogTailBytes, cfg.UncommittedBytesMax = 4<<20, 1<<20, 1<<20
	})
	m := c.leader()
	// A store that never says that it has synced.
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	slow, err := m.client().Deliver(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.Send(&consensuspb.DeliverRequest{Start: &consensuspb.DeliverStart{Store: "slow"}}); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			if _, err := slow.Recv(); err != nil {
				return
			}
		}
	}()
	stream, err := m.client().Propose(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	for stream.Send(&consensuspb.ProposeRequest{Payloads: [][]byte{make([]byte, 64<<10)}}) == nil {
	}
	if _, err := stream.Recv(); !errors.Is(err, errs.ErrTooManyRequests) {
		t.Fatalf("got %v", err)
	}
	c.eventually("proposals are taken again", func() bool {
		at := m.store.position().Proto() // what was taken goes on arriving
		if err := slow.Send(&consensuspb.DeliverRequest{Progress: &consensuspb.DeliverProgress{Applied: at, Synced: at}}); err != nil {
			t.Fatal(err)
		}
		again, err := m.client().Propose(c.ctx)
		if err != nil {
			return false
		}
		if _, err := again.Recv(); err != nil {
			return false
		}
		if err := again.Send(&consensuspb.ProposeRequest{Payloads: [][]byte{[]byte("again")}}); err != nil {
			return false
		}
		_ = again.CloseSend()
		_, err = again.Recv()
		return !errors.Is(err, errs.ErrTooManyRequests)
	})
}

// rewinder proposes numbered payloads as a session does: on each new stream it
// begins again with the first that it has not seen delivered.
type rewinder struct {
	c    *cluster
	last int // payloads 1..last are to be delivered
	done int // seen delivered
}

func (r *rewinder) run(ctx context.Context) error {
	for r.done < r.last {
		for _, m := range r.c.members {
			if r.done < r.last {
				_ = r.stream(ctx, m) // the next stream rewinds
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}

// stream proposes to one member for as long as it leads.
func (r *rewinder) stream(ctx context.Context, m *member) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := m.client().Propose(ctx)
	if err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	for next := r.done + 1; r.done < r.last; {
		if next <= r.last && next <= r.done+200 {
			req := &consensuspb.ProposeRequest{}
			for range 5 {
				if next <= r.last {
					req.Payloads = append(req.Payloads, []byte(strconv.Itoa(next)))
					next++
				}
			}
			if err := stream.Send(req); err != nil {
				return err
			}
		} else {
			time.Sleep(time.Millisecond) // a window, as a session has one
			if l := m.status(); l.Role != consensuspb.Status_LEADER {
				return nil
			}
		}
		r.done, _ = m.store.applied()
	}
	return nil
}

func TestLeaderChangesUnderProposals(t *testing.T) {
	// Room for a machine that is busy with other tests.
	c := newCluster(t, 3, func(cfg *consensusd.Config) {
		cfg.HeartbeatInterval, cfg.ElectionTimeout = 20*time.Millisecond, 200*time.Millisecond
	})
	c.leader()
	r := &rewinder{c: c, last: 1000}
	ended := make(chan error, 1)
	go func() { ended <- r.run(c.ctx) }()
	changes := 0
	for running := true; running; changes++ {
		lead := c.leader()
		switch changes % 3 {
		case 0:
			lead.halt()
		case 1:
			lead.kill()
		case 2:
			lead.gate.shut.Store(true)
			c.eventually("it steps down", func() bool { return lead.status().Role != consensuspb.Status_LEADER })
			lead.gate.shut.Store(false)
		}
		if lead.stop == nil {
			lead.start()
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		case <-time.After(50 * time.Millisecond): // the pace of the changes, not a wait
		}
	}
	c.leader()
	for _, m := range c.members {
		c.eventually("delivery to "+m.addr, func() bool {
			last, err := m.store.applied()
			if err != nil {
				t.Fatalf("%s: %v", m.addr, err)
			}
			return last == r.last
		})
	}
	t.Logf("%d leader changes", changes)
}

func TestAllStopTogether(t *testing.T) {
	c := newCluster(t, 3, func(cfg *consensusd.Config) {
		cfg.ElectionTimeout = 60 * time.Second
		cfg.HeartbeatInterval = 100 * time.Millisecond
	})
	propose(t, c.leader(), "a")
	begin := time.Now()
	ended := make(chan error, len(c.members))
	for _, m := range c.members {
		go func() { ended <- m.stop() }()
	}
	for range c.members {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for _, m := range c.members {
		m.stop = nil
	}
	// A leader that waited for members which are gone would take the election
	// timeout.
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("stopping took %v", took)
	}
}

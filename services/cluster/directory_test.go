package cluster_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/inproc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// teller is a consensusd that says what the test makes it say.
type teller struct {
	consensuspb.UnimplementedConsensusServer
	server *inproc.Server
	heard  chan struct{} // one token: somebody was told

	mu struct {
		sync.Mutex
		status  *consensuspb.Status
		changed chan struct{}
	}
}

func tell(t *testing.T, f *inproc.Fabric, addr string, s *consensuspb.Status) *teller {
	w := &teller{server: f.Server(addr), heard: make(chan struct{}, 1)}
	w.mu.changed = make(chan struct{})
	w.mu.status = s
	consensuspb.RegisterConsensusServer(w.server, w)
	t.Cleanup(w.server.Stop)
	return w
}

func (w *teller) say(s *consensuspb.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.status = s
	close(w.mu.changed)
	w.mu.changed = make(chan struct{})
}

func (w *teller) Observe(_ *consensuspb.ObserveRequest, stream consensuspb.Consensus_ObserveServer) error {
	for {
		w.mu.Lock()
		status, changed := w.mu.status, w.mu.changed
		w.mu.Unlock()
		if err := stream.Send(status); err != nil {
			return err
		}
		select {
		case w.heard <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

var members = []*consensuspb.Member{
	{Id: 1, ConsensusAddress: "c1", StoreAddress: "s1", LeaseAddress: "l1"},
	{Id: 2, ConsensusAddress: "c2", StoreAddress: "s2", LeaseAddress: "l2"},
	{Id: 3, ConsensusAddress: "c3", StoreAddress: "s3"},
}

func status(member, term, leader uint64) *consensuspb.Status {
	s := &consensuspb.Status{ClusterId: 7, MemberId: member, Epoch: 1, Term: term, Leader: leader, Publisher: leader, Commit: term, Members: members}
	if member == leader {
		s.Role = consensuspb.Status_LEADER
	}
	return s
}

func run(t *testing.T, f *inproc.Fabric, seeds ...string) *cluster.Directory {
	d := cluster.New(cluster.Config{Seeds: seeds, Dialer: f, ObserveRetryMin: time.Millisecond, ObserveRetryMax: 5 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return d
}

func until(t *testing.T, d *cluster.Directory, what string, holds func(cluster.View) bool) cluster.View {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		changed := d.Changed()
		v := d.View()
		if holds(v) {
			return v
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("never: %s; view %+v", what, v)
		}
	}
}

func TestOneSeedFindsAllMembers(t *testing.T) {
	f := inproc.NewFabric()
	for i := uint64(1); i <= 3; i++ {
		tell(t, f, members[i-1].ConsensusAddress, status(i, 4, 2))
	}
	d := run(t, f, "c1")
	v := until(t, d, "all reachable", func(v cluster.View) bool {
		return len(v.Members) == 3 && v.Members[0].Reachable && v.Members[1].Reachable && v.Members[2].Reachable
	})
	if v.ClusterID != 7 || v.Epoch != 1 || v.Term != 4 || v.Leader != 2 || v.Publisher != 2 || !v.Led() {
		t.Errorf("view %+v", v)
	}
	if _, err := d.Store(3); err != nil {
		t.Logf("no store serves here, the fabric says so: %v", err)
	}
	if _, err := d.Lessor(3); !errors.Is(err, errs.ErrNotReady) {
		t.Errorf("a member without a lessor: %v", err)
	}
	if _, err := d.Consensus(9); !errors.Is(err, errs.ErrNotReady) {
		t.Errorf("an unknown member: %v", err)
	}
}

func TestHigherTermOverrulesSilentLeader(t *testing.T) {
	f := inproc.NewFabric()
	tell(t, f, "c1", status(1, 4, 1)) // says nothing more, as if paused
	two := tell(t, f, "c2", status(2, 4, 1))
	tell(t, f, "c3", status(3, 4, 1))
	d := run(t, f, "c1", "c2", "c3")
	until(t, d, "1 leads", func(v cluster.View) bool { return v.Leader == 1 && v.Led() })
	two.say(status(2, 5, 0))
	until(t, d, "nobody leads", func(v cluster.View) bool { return v.Term == 5 && v.Leader == 0 })
	two.say(status(2, 5, 2))
	until(t, d, "2 leads", func(v cluster.View) bool { return v.Leader == 2 && v.Led() })
}

func TestLeadersOwnWordIsLast(t *testing.T) {
	f := inproc.NewFabric()
	one := tell(t, f, "c1", status(1, 4, 1))
	tell(t, f, "c2", status(2, 4, 1))
	tell(t, f, "c3", status(3, 4, 1))
	d := run(t, f, "c1", "c2", "c3")
	until(t, d, "1 leads", func(v cluster.View) bool { return v.Leader == 1 })
	one.say(status(1, 4, 0)) // it stepped down; the others do not know yet
	until(t, d, "nobody leads", func(v cluster.View) bool { return v.Leader == 0 })
}

func TestDeadLeaderIsNamedButNotLed(t *testing.T) {
	f := inproc.NewFabric()
	one := tell(t, f, "c1", status(1, 4, 1))
	tell(t, f, "c2", status(2, 4, 1))
	d := run(t, f, "c1", "c2")
	until(t, d, "1 leads and 2 has said so", func(v cluster.View) bool {
		two, ok := v.Member(2)
		return v.Led() && ok && two.Reachable
	})
	one.server.Stop()
	v := until(t, d, "1 is unreachable", func(v cluster.View) bool { return !v.Led() })
	if v.Leader != 1 {
		t.Errorf("leader %d, want 1 as member 2 still says", v.Leader)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	if _, err := d.WaitLeader(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitLeader: %v", err)
	}
	tell(t, f, "c1", status(1, 6, 1))
	if _, err := d.WaitLeader(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestOtherClusterIsRefused(t *testing.T) {
	f := inproc.NewFabric()
	tell(t, f, "c1", status(1, 4, 1))
	d := run(t, f, "c1", "c2")
	until(t, d, "1 leads", cluster.View.Led)
	foreign := status(2, 99, 2)
	foreign.ClusterId = 8
	two := tell(t, f, "c2", foreign)
	<-two.heard
	tell(t, f, "c3", status(3, 5, 1))
	v := until(t, d, "term 5", func(v cluster.View) bool { return v.Term == 5 })
	if v.ClusterID != 7 {
		t.Errorf("view %+v", v)
	}
}

package leased_test

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/leased"
	"github.com/quartet-kv/quartet/proto/leasepb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/clock"
	"github.com/quartet-kv/quartet/services/daemon"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/lease/leasetest"
)

// lessors are a world's, all of them running.
type lessors struct {
	*world
	t       *testing.T
	clock   *clock.Manual
	clients []leasepb.LessorClient
	stop    []func()
}

// serve puts one lessor where clients and the other lessors reach it.
type serve func(t *testing.T, w *world, member uint64, l *leased.Leased) leasepb.LessorClient

func inProcess(t *testing.T, w *world, member uint64, l *leased.Leased) leasepb.LessorClient {
	s := w.fabric.Server(address("lease", member))
	l.Register(s)
	t.Cleanup(s.Stop)
	return leasepb.NewLessorClient(s.Conn())
}

// overWire serves clients over gRPC; the lessors find each other in process.
func overWire(t *testing.T, w *world, member uint64, l *leased.Leased) leasepb.LessorClient {
	inProcess(t, w, member, l)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := daemon.NewServer()
	l.Register(server)
	go func() { _ = server.Serve(listener) }() // ends with Stop
	dialer := dial.NewGRPC(grpc.WithAuthority("lease"))
	t.Cleanup(func() { _ = dialer.Close(); server.Stop() })
	conn, err := dialer.Dial(listener.Addr().String(), dial.Control)
	if err != nil {
		t.Fatal(err)
	}
	return leasepb.NewLessorClient(conn)
}

// start runs a lessor beside each member. A manual clock may run faster than
// probes are answered, so silence is for the tests that are about it.
func start(t *testing.T, members int, silence time.Duration, serve serve) *lessors {
	ls := &lessors{world: newWorld(t, members), t: t, clock: &clock.Manual{}}
	for id := uint64(1); id <= uint64(members); id++ {
		cfg := leased.DefaultConfig()
		cfg.Consensus, cfg.Store, cfg.SilenceMax = address("consensus", id), address("store", id), silence
		l, err := leased.New(cfg, leased.Deps{Dialer: ls.fabric, Clock: ls.clock})
		if err != nil {
			t.Fatal(err)
		}
		ls.clients = append(ls.clients, serve(t, ls.world, id, l))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		stopped := false
		stop := func() {
			if stopped {
				return
			}
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Errorf("lessor %d: %v", id, err)
			}
		}
		ls.stop = append(ls.stop, stop)
		t.Cleanup(stop)
	}
	return ls
}

// pass lets time pass in steps that every lessor has seen, each below what it
// counts per pass.
func (ls *lessors) pass(d time.Duration) {
	for d > 0 {
		step := min(d, 500*time.Millisecond)
		d -= step
		ls.clock.Advance(step)
		for _, c := range ls.clients {
			_, _ = c.GetStatus(context.Background(), &leasepb.GetStatusRequest{}) // a stopped one sees nothing
		}
	}
}

func (ls *lessors) cluster() *leasetest.Cluster {
	return &leasetest.Cluster{
		Lessors: ls.clients,
		Grant: func(id, ttl int64) {
			ls.command(logpb.Command_LEASE_GRANT, &etcdserverpb.LeaseGrantRequest{ID: id, TTL: ttl})
		},
		Revoke: func(id int64) {
			ls.command(logpb.Command_LEASE_REVOKE, &etcdserverpb.LeaseRevokeRequest{ID: id})
		},
		Exists:   ls.exists,
		Pass:     ls.pass,
		Lead:     func(i int) { ls.lead(uint64(i + 1)) },
		GraceMax: leased.DefaultConfig().Grace,
	}
}

func TestConformance(t *testing.T) {
	for name, serve := range map[string]serve{"in process": inProcess, "over gRPC": overWire} {
		t.Run(name, func(t *testing.T) {
			leasetest.Run(t, func(t *testing.T) *leasetest.Cluster { return start(t, 3, time.Hour, serve).cluster() })
		})
	}
}

func TestRunStopsCleanly(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("three lessors", func(t *testing.T) {
		ls := start(t, 3, time.Hour, inProcess)
		ls.awaitPrimary()
	})
}

// awaitPrimary waits for a lessor that says it is primary.
func (ls *lessors) awaitPrimary() int {
	ls.t.Helper()
	for began := time.Now(); time.Since(began) < 20*time.Second; ls.pass(10 * time.Millisecond) {
		for i, c := range ls.clients {
			s, err := c.GetStatus(context.Background(), &leasepb.GetStatusRequest{})
			if err == nil && s.Primary {
				return i
			}
		}
	}
	ls.t.Fatal("no primary")
	return -1
}

// The leader's lessor is gone for good: another takes over, by silence.
func TestAnotherClaimsWhenThePrimaryIsSilent(t *testing.T) {
	ls := start(t, 3, 3*time.Second, inProcess)
	if p := ls.awaitPrimary(); p != 0 {
		t.Fatalf("lessor %d is primary, not the leader's", p)
	}
	ls.stop[0]()
	if p := ls.awaitPrimary(); p == 0 {
		t.Fatal("a stopped lessor is primary")
	}
}

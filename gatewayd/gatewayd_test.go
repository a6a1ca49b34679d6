package gatewayd_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quartet-kv/quartet/gatewayd"
)

type gateway struct {
	*gatewayd.Gatewayd
	stop func() error // and wait
}

func (w *world) gateway(t *testing.T, change func(*gatewayd.Config)) *gateway {
	t.Helper()
	c := gatewayd.DefaultConfig()
	c.ClientListen, c.Consensus, c.Name = []string{"127.0.0.1:0"}, []string{consensusAddr(1), consensusAddr(2)}, "gateway-1"
	if change != nil {
		change(&c)
	}
	g, err := gatewayd.New(c, gatewayd.Deps{Dialer: w.fabric})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	stopped := false
	stop := func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return &gateway{g, stop}
}

func (g *gateway) client(t *testing.T) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: g.Addrs(), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestGatewayServesClients(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("", func(t *testing.T) {
		w := newWorld(t, 3)
		g := w.gateway(t, func(c *gatewayd.Config) { c.Member = "m2" })
		ctx := soon(t)
		if err := g.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		c := g.client(t)
		events := c.Watch(ctx, "k")
		put, err := c.Put(ctx, "k", "v")
		if err != nil {
			t.Fatal(err)
		}
		if h := put.Header; h.ClusterId != clusterID || h.MemberId != 2 || h.Revision != 2 || h.RaftTerm != 1 {
			t.Errorf("header %v", h)
		}
		get, err := c.Get(ctx, "k")
		if err != nil || len(get.Kvs) != 1 || string(get.Kvs[0].Value) != "v" || get.Header.Revision != 2 {
			t.Errorf("%v %v", get, err)
		}
		if r := <-events; r.Err() != nil || len(r.Events) != 1 || string(r.Events[0].Kv.Value) != "v" || r.Header.MemberId != 2 {
			t.Errorf("watched %v, %v", r, r.Err())
		}
		if past := <-c.Watch(ctx, "k", clientv3.WithRev(2)); len(past.Events) != 1 {
			t.Errorf("watched from revision 2: %v %v", past, past.Err())
		}
		if err := g.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}

func TestWritesOutliveALeaderChange(t *testing.T) {
	w := newWorld(t, 3)
	g := w.gateway(t, nil)
	ctx := soon(t)
	c := g.client(t)
	if _, err := c.Put(ctx, "k", "1"); err != nil {
		t.Fatal(err)
	}
	w.elect(0)
	done := make(chan error, 1)
	go func() {
		resp, err := c.Put(ctx, "k", "2")
		if err == nil && (resp.Header.Revision != 3 || resp.Header.RaftTerm < 3) {
			err = fmt.Errorf("header %v", resp.Header)
		}
		done <- err
	}()
	w.elect(3)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestMembersAreListedWithTheirGateways(t *testing.T) {
	w := newWorld(t, 2)
	one := w.gateway(t, func(c *gatewayd.Config) { c.AdvertiseClientURLs = []string{"http://one:2379"} })
	two := w.gateway(t, func(c *gatewayd.Config) {
		c.Name, c.Member, c.AdvertiseClientURLs = "gateway-2", "2", []string{"http://two:2379", "http://two:4001"}
	})
	ctx := soon(t)
	for _, g := range []*gateway{one, two} {
		if _, err := g.client(t).Put(ctx, "k", ""); err != nil { // its session is open
			t.Fatal(err)
		}
	}
	list, err := one.client(t).MemberList(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if h := list.Header; h.Revision != 0 || h.MemberId != 1 || h.RaftTerm != 1 {
		t.Errorf("header %v", h)
	}
	if len(list.Members) != 2 || list.Members[0].Name != "m1" || list.Members[1].PeerURLs[0] != "http://peer-2" ||
		!slices.Equal(list.Members[0].ClientURLs, []string{"http://one:2379"}) ||
		!slices.Equal(list.Members[1].ClientURLs, []string{"http://two:2379", "http://two:4001"}) {
		t.Errorf("members %v", list.Members)
	}
}

func TestMaintenanceIsAboutTheMember(t *testing.T) {
	w := newWorld(t, 2)
	g := w.gateway(t, func(c *gatewayd.Config) { c.Member = "m2" })
	ctx := soon(t)
	c := g.client(t)
	if _, err := c.Put(ctx, "k", ""); err != nil {
		t.Fatal(err)
	}
	s, err := c.Status(ctx, g.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	if s.Header.MemberId != 2 || s.Header.Revision != 2 || s.Leader != 1 || s.RaftTerm != 1 || s.RaftIndex < 2 || s.RaftAppliedIndex < 2 ||
		s.DbSize != 4096 || s.DbSizeInUse != 1024 || s.IsLearner || len(s.Errors) != 0 || strings.Count(s.Version, ".") != 2 || !strings.HasPrefix(s.Version, "3.7.") {
		t.Errorf("status %v", s)
	}
	h, err := c.HashKV(ctx, g.Addrs()[0], 0)
	if err != nil || h.Hash != 77 || h.CompactRevision != -1 || h.HashRevision != 3 || h.Header.MemberId != 2 {
		t.Errorf("hash %v %v", h, err)
	}
	alarms, err := c.AlarmList(ctx)
	if err != nil || len(alarms.Alarms) != 0 || alarms.Header.Revision != 2 {
		t.Errorf("alarms %v %v", alarms, err)
	}
	if _, err := c.Defragment(ctx, g.Addrs()[0]); status.Code(err) != codes.Unimplemented {
		t.Errorf("defragment: %v", err)
	}
	auth, err := c.AuthStatus(ctx)
	if err != nil || auth.Enabled || auth.Header.Revision != 2 {
		t.Errorf("auth %v %v", auth, err)
	}
	if _, err := c.UserAdd(ctx, "u", "p"); status.Code(err) != codes.Unimplemented {
		t.Errorf("user add: %v", err)
	}
	if _, err := c.MemberAdd(ctx, []string{"http://x:1"}); status.Code(err) != codes.Unimplemented {
		t.Errorf("member add: %v", err)
	}
}

func TestWithoutALeader(t *testing.T) {
	w := newWorld(t, 2)
	g := w.gateway(t, func(c *gatewayd.Config) {
		c.ElectionTimeout, c.RequestTimeout = 100*time.Millisecond, 300*time.Millisecond
	})
	ctx := soon(t)
	if err := g.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	c := g.client(t)
	health := healthpb.NewHealthClient(c.ActiveConnection())
	waitHealth(t, ctx, health, healthpb.HealthCheckResponse_SERVING)
	strict := c.Watch(clientv3.WithRequireLeader(ctx), "k", clientv3.WithCreatedNotify())
	if r := <-strict; r.Err() != nil {
		t.Fatal(r.Err())
	}

	w.elect(0)
	waitHealth(t, ctx, health, healthpb.HealthCheckResponse_NOT_SERVING)
	if _, err := c.Get(ctx, "k", clientv3.WithSerializable()); err != nil {
		t.Errorf("serializable read: %v", err)
	}
	s, err := c.Status(ctx, g.Addrs()[0])
	if err != nil || s.Leader != 0 || !slices.Equal(s.Errors, []string{"etcdserver: no leader"}) {
		t.Errorf("status %v %v", s, err)
	}
	kv := etcdserverpb.NewKVClient(c.ActiveConnection())
	_, err = kv.Put(ctx, &etcdserverpb.PutRequest{Key: []byte("k")})
	if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "etcdserver: request timed out" {
		t.Errorf("put: %v", err)
	}
	_, err = kv.Range(ctx, &etcdserverpb.RangeRequest{Key: []byte("k")})
	if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "etcdserver: request timed out" {
		t.Errorf("linearizable read: %v", err)
	}
	_, err = kv.Range(clientv3.WithRequireLeader(ctx), &etcdserverpb.RangeRequest{Key: []byte("k"), Serializable: true})
	if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "etcdserver: no leader" {
		t.Errorf("read that requires a leader: %v", err)
	}
	if r := <-strict; !errors.Is(r.Err(), rpctypes.ErrNoLeader) {
		t.Errorf("watch that requires a leader: %v", r.Err())
	}

	w.elect(2)
	waitHealth(t, ctx, health, healthpb.HealthCheckResponse_SERVING)
	if _, err := c.Put(ctx, "k", ""); err != nil {
		t.Errorf("put with a leader again: %v", err)
	}
}

func waitHealth(t *testing.T, ctx context.Context, c healthpb.HealthClient, want healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	stream, err := c.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			t.Fatalf("waiting for %v: %v", want, err)
		}
		if r.Status == want {
			return
		}
	}
}

func TestReadySaysWhatIsMissing(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateway(t, func(c *gatewayd.Config) { c.Member = "m7" })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := g.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "gateway-1") {
		t.Errorf("ready: %v", err)
	}
}

func TestConfigNamesEveryViolation(t *testing.T) {
	c := gatewayd.DefaultConfig()
	c.ClientListen, c.TxnOpsMax, c.RequestBytesMax, c.ElectionTimeout, c.AdvertiseClientURLs = nil, 0, 64<<20, 0, []string{"host:1", "ftp://host:1", "http://host"}
	err := c.Validate()
	for _, flag := range []string{"--client-listen", "--consensus", "--max-txn-ops", "--max-request-bytes", "--election-timeout", "--advertise-client-urls=host:1", "--advertise-client-urls=ftp:", "--advertise-client-urls=http://host"} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s is not in %v", flag, err)
		}
	}
	c = gatewayd.DefaultConfig()
	c.Consensus = []string{"127.0.0.1:2380"}
	if err := c.Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

package lease_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/gatewayd/internal/lease"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/leasepb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/inproc"
	"github.com/quartet-kv/quartet/services/logid"
	"github.com/quartet-kv/quartet/services/store"
)

// lessor is one member's leased. Its leases live for ever.
type lessor struct {
	leasepb.UnimplementedLessorServer

	mu      sync.Mutex
	primary bool
	ttls    map[int64]int64
	batches [][]int64
	streams int
	// hold, when set, keeps every answer back until it closes.
	hold chan struct{}
}

func (l *lessor) KeepAlive(stream leasepb.Lessor_KeepAliveServer) error {
	l.mu.Lock()
	l.streams++
	l.mu.Unlock()
	for {
		b, err := stream.Recv()
		if err != nil {
			return nil
		}
		l.mu.Lock()
		hold := l.hold
		l.mu.Unlock()
		if hold != nil {
			select {
			case <-hold:
			case <-stream.Context().Done():
				return nil
			}
		}
		res, err := l.renew(b.Ids)
		if err != nil {
			return err
		}
		if err := stream.Send(res); err != nil {
			return err
		}
	}
}

func (l *lessor) renew(ids []int64) (*leasepb.KeepAliveResults, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.primary {
		return nil, errs.ErrNotPrimary
	}
	l.batches = append(l.batches, ids)
	res := &leasepb.KeepAliveResults{Revision: 20, RaftTerm: 4}
	for _, id := range ids {
		res.Ttls = append(res.Ttls, l.ttls[id])
	}
	return res, nil
}

func (l *lessor) TimeToLive(_ context.Context, r *leasepb.TimeToLiveRequest) (*leasepb.TimeToLiveResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.primary {
		return nil, errs.ErrNotPrimary
	}
	resp := &leasepb.TimeToLiveResponse{}
	for _, id := range r.Ids {
		left, granted := int64(-1), l.ttls[id]
		if granted > 0 {
			left = granted*1000 - 1
		}
		resp.RemainingMs, resp.Granted = append(resp.RemainingMs, left), append(resp.Granted, granted)
	}
	return resp, nil
}

func (l *lessor) List(context.Context, *leasepb.ListRequest) (*leasepb.ListResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.primary {
		return nil, errs.ErrNotPrimary
	}
	return &leasepb.ListResponse{Ids: []int64{9, 3, -5}}, nil
}

func (l *lessor) set(primary bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.primary = primary
}

// members is a cluster's directory, with lessors on a fabric.
type members struct {
	*inproc.Fabric
	leader  uint64
	lessors []*lessor
	servers []*inproc.Server
}

func newMembers(n int) *members {
	m := &members{Fabric: inproc.NewFabric(), leader: 1}
	for i := range n {
		l := &lessor{ttls: map[int64]int64{1: 10, 2: 20, 3: 30}}
		s := m.Server(fmt.Sprintf("lease%d", i+1))
		leasepb.RegisterLessorServer(s, l)
		m.lessors, m.servers = append(m.lessors, l), append(m.servers, s)
	}
	return m
}

func (m *members) stop() {
	for _, s := range m.servers {
		s.Stop()
	}
}

func (m *members) View() cluster.View {
	v := cluster.View{Leader: m.leader}
	for i := range m.lessors {
		v.Members = append(v.Members, cluster.Member{Member: &consensuspb.Member{Id: uint64(i + 1)}})
	}
	return v
}

func (m *members) Changed() <-chan struct{} { return nil }

func (m *members) Lessor(member uint64) (leasepb.LessorClient, error) {
	conn, err := m.Dial(fmt.Sprintf("lease%d", member), dial.Control)
	if err != nil {
		return nil, err
	}
	return leasepb.NewLessorClient(conn), nil
}

// circle is the rest behind the gateway.
type circle struct {
	mu       sync.Mutex
	proposed []proto.Message
	refuse   error
}

func (c *circle) Propose(_ context.Context, kind logpb.Command_Kind, body []byte) (*storepb.Outcome, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse != nil {
		return nil, c.refuse
	}
	var m proto.Message = &pb.LeaseRevokeRequest{}
	out := &storepb.Outcome{Revision: 12}
	if kind == logpb.Command_LEASE_GRANT {
		m = &pb.LeaseGrantRequest{}
	}
	if err := proto.Unmarshal(body, m); err != nil {
		return nil, err
	}
	if g, ok := m.(*pb.LeaseGrantRequest); ok {
		out.Body, _ = proto.Marshal(&pb.LeaseGrantResponse{ID: g.ID, TTL: g.TTL})
	}
	c.proposed = append(c.proposed, m)
	return out, nil
}

func (c *circle) Wait(context.Context) (logid.ID, logid.Term, error) {
	return logid.ID{Epoch: 1, Index: 50, Term: 4}, 4, nil
}

func (c *circle) Read(_ context.Context, r *storepb.ReadRequest, floor store.Floor) (store.Result, error) {
	result := store.Result{ReadResult: &storepb.ReadResult{Revision: 15}, Term: 4}
	if r.Kind != storepb.ReadRequest_LEASE {
		return result, nil
	}
	if floor.Index != 50 {
		return store.Result{}, fmt.Errorf("floor at %d", floor.Index)
	}
	var req pb.LeaseTimeToLiveRequest
	if err := proto.Unmarshal(r.Body, &req); err != nil {
		return store.Result{}, err
	}
	if req.ID > 3 {
		result.Error = status.Convert(rpctypes.ErrGRPCLeaseNotFound).Message()
		return result, rpctypes.ErrGRPCLeaseNotFound
	}
	record := &pb.LeaseTimeToLiveResponse{GrantedTTL: 10 * req.ID}
	if req.Keys {
		record.Keys = [][]byte{[]byte("a")}
	}
	result.Body, _ = proto.Marshal(record)
	return result, nil
}

type gateway struct {
	*members
	*circle
	client pb.LeaseClient
}

func start(t *testing.T, n int, patience time.Duration) *gateway {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	g := &gateway{members: newMembers(n), circle: &circle{}}
	e := edge.New(edge.Config{Directory: g.members, RequestTimeout: patience, ElectionTimeout: time.Second, Metrics: edge.NewMetrics(nil)})
	renewer := lease.NewRenewer(g.members, patience, slog.New(slog.DiscardHandler))
	server := grpc.NewServer(grpc.UnaryInterceptor(e.Unary), grpc.StreamInterceptor(e.Stream))
	pb.RegisterLeaseServer(server, lease.New(lease.Deps{Edge: e, Session: g.circle, Index: g.circle, Reader: g.circle, Renewer: renewer}, time.Second))
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	g.client = pb.NewLeaseClient(conn)
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { renewer.Run(ctx) })
	loops.Go(func() { server.Serve(lis) })
	t.Cleanup(func() {
		conn.Close()
		cancel()
		server.Stop()
		loops.Wait()
		g.stop()
	})
	return g
}

func (g *gateway) keepAlive(t *testing.T) pb.Lease_LeaseKeepAliveClient {
	t.Helper()
	s, err := g.client.LeaseKeepAlive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGrantFillsIDAndTTL(t *testing.T) {
	g := start(t, 1, time.Second)
	for _, c := range []struct{ ttl, want int64 }{{-3, 2}, {0, 2}, {1, 2}, {2, 2}, {3, 3}, {9_000_000_000, 9_000_000_000}} {
		resp, err := g.client.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: c.ttl})
		if err != nil {
			t.Fatal(err)
		}
		if resp.TTL != c.want || resp.ID <= 0 || resp.Header.Revision != 12 || resp.Error != "" {
			t.Errorf("TTL %d: %v", c.ttl, resp)
		}
	}
	if resp, err := g.client.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 5, ID: -7}); err != nil || resp.ID != -7 {
		t.Errorf("chosen id: %v %v", resp, err)
	}
	_, err := g.client.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 9_000_000_001})
	if s := status.Convert(err); s.Code() != codes.OutOfRange || s.Message() != "etcdserver: too large lease TTL" {
		t.Errorf("TTL too large: %v", err)
	}
	g.refuse = errs.FromText("etcdserver: lease already exists")
	if _, err := g.client.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 5, ID: 7}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("existing id: %v", err)
	}
}

func TestRevoke(t *testing.T) {
	g := start(t, 1, time.Second)
	resp, err := g.client.LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: 4})
	if err != nil || resp.Header.Revision != 12 || g.proposed[0].(*pb.LeaseRevokeRequest).ID != 4 {
		t.Fatalf("%v %v", resp, err)
	}
	g.refuse = errs.FromText("etcdserver: requested lease not found")
	if _, err := g.client.LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: 4}); status.Code(err) != codes.NotFound {
		t.Errorf("unknown lease: %v", err)
	}
}

func TestTimeToLive(t *testing.T) {
	g := start(t, 2, time.Second)
	g.lessors[1].set(true)
	resp, err := g.client.LeaseTimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: 2, Keys: true})
	if err != nil {
		t.Fatal(err)
	}
	// Whole seconds that remain, not rounded up.
	if resp.ID != 2 || resp.TTL != 19 || resp.GrantedTTL != 20 || len(resp.Keys) != 1 || resp.Header.Revision != 15 {
		t.Errorf("%v", resp)
	}
	resp, err = g.client.LeaseTimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: 99})
	if err != nil || resp.TTL != -1 || resp.GrantedTTL != 0 || resp.ID != 99 || resp.Header.Revision != 15 {
		t.Errorf("unknown lease: %v %v", resp, err)
	}
	list, err := g.client.LeaseLeases(t.Context(), &pb.LeaseLeasesRequest{})
	if err != nil || len(list.Leases) != 3 || list.Leases[0].ID != 9 || list.Leases[2].ID != -5 || list.Header.Revision != 15 {
		t.Errorf("leases: %v %v", list, err)
	}
}

func TestKeepAlivesAreAnsweredInOrder(t *testing.T) {
	g := start(t, 3, time.Second)
	g.lessors[2].set(true)
	const streams, rounds = 20, 50
	var all sync.WaitGroup
	for range streams {
		all.Go(func() {
			s := g.keepAlive(t)
			for i := range rounds {
				if err := s.Send(&pb.LeaseKeepAliveRequest{ID: int64(i % 5)}); err != nil {
					t.Error(err)
					return
				}
			}
			if err := s.CloseSend(); err != nil {
				t.Error(err)
			}
			for i := range rounds {
				resp, err := s.Recv()
				if err != nil {
					t.Error(err)
					return
				}
				id := int64(i % 5)
				want := id * 10
				if id > 3 {
					want = 0 // no such lease
				}
				if resp.ID != id || resp.TTL != want || resp.Header.Revision != 20 || resp.Header.RaftTerm != 4 {
					t.Errorf("response %d is %v", i, resp)
					return
				}
			}
			if _, err := s.Recv(); err == nil || err.Error() != "EOF" {
				t.Errorf("a half-closed stream ended with %v", err)
			}
		})
	}
	all.Wait()
	if g.lessors[2].streams != 1 {
		t.Errorf("%d streams to the primary", g.lessors[2].streams)
	}
}

func TestKeepAlivesShareBatches(t *testing.T) {
	g := start(t, 1, 5*time.Second)
	g.lessors[0].primary, g.lessors[0].hold = true, make(chan struct{})
	const n = 200
	s := g.keepAlive(t)
	for range n {
		if err := s.Send(&pb.LeaseKeepAliveRequest{ID: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	close(g.lessors[0].hold)
	for range n {
		if resp, err := s.Recv(); err != nil || resp.TTL != 10 {
			t.Fatal(resp, err)
		}
	}
	if got := len(g.lessors[0].batches); got >= n {
		t.Errorf("%d batches for %d keep-alives that waited together", got, n)
	}
}

func TestKeepAliveFollowsThePrimary(t *testing.T) {
	g := start(t, 3, 5*time.Second)
	g.lessors[0].set(true)
	s := g.keepAlive(t)
	ask := func() (*pb.LeaseKeepAliveResponse, error) {
		if err := s.Send(&pb.LeaseKeepAliveRequest{ID: 2}); err != nil {
			return nil, err
		}
		return s.Recv()
	}
	for primary := range g.lessors {
		for i, l := range g.lessors {
			l.set(i == primary)
		}
		if resp, err := ask(); err != nil || resp.TTL != 20 {
			t.Fatalf("primary %d: %v %v", primary, resp, err)
		}
	}
	// The primary dies; another one claims a little later, while a keep-alive
	// waits.
	g.servers[2].Stop()
	done := make(chan error, 1)
	go func() { _, err := ask(); done <- err }()
	select {
	case err := <-done:
		t.Fatalf("answered without a primary: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	g.lessors[1].set(true)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestKeepAliveWithoutLessorsIsUnavailableAtOnce(t *testing.T) {
	g := start(t, 3, time.Hour)
	g.stop()
	s := g.keepAlive(t)
	if err := s.Send(&pb.LeaseKeepAliveRequest{ID: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("ended with %v", err)
	}
	if _, err := g.client.LeaseTimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: 2}); status.Code(err) != codes.Unavailable {
		t.Fatalf("time to live: %v", err)
	}
}

func TestKeepAliveGivesUpWithoutPrimary(t *testing.T) {
	g := start(t, 3, 150*time.Millisecond)
	s := g.keepAlive(t)
	if err := s.Send(&pb.LeaseKeepAliveRequest{ID: 2}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Recv()
	if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "etcdserver: request timed out" {
		t.Fatalf("ended with %v", err)
	}
	_, err = g.client.LeaseTimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: 2})
	if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "etcdserver: request timed out" {
		t.Fatalf("time to live: %v", err)
	}
}

func TestKeepAliveLeavesASilentPrimary(t *testing.T) {
	g := start(t, 2, 10*time.Second)
	g.lessors[0].primary, g.lessors[0].hold = true, make(chan struct{})
	g.lessors[1].primary = true
	s := g.keepAlive(t)
	if err := s.Send(&pb.LeaseKeepAliveRequest{ID: 3}); err != nil {
		t.Fatal(err)
	}
	if resp, err := s.Recv(); err != nil || resp.TTL != 30 {
		t.Fatalf("%v %v", resp, err)
	}
	if len(g.lessors[0].batches) != 0 {
		t.Error("the silent one answered")
	}
}

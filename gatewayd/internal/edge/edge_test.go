package edge_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

type directory struct {
	mu      sync.Mutex
	view    cluster.View
	changed chan struct{}
}

func newDirectory(leader uint64, term logid.Term) *directory {
	return &directory{view: cluster.View{Leader: leader, Term: term}, changed: make(chan struct{})}
}

func (d *directory) View() cluster.View {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.view
}

func (d *directory) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

func (d *directory) set(leader uint64, term logid.Term) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.view = cluster.View{Leader: leader, Term: term}
	close(d.changed)
	d.changed = make(chan struct{})
}

func newEdge(d *directory) *edge.Edge {
	return edge.New(edge.Config{
		Identity:  edge.Identity{ClusterID: 0xfeed, MemberID: 0x8000_0000_0000_0001},
		Directory: d, RequestTimeout: 7 * time.Second, ElectionTimeout: time.Second,
		Metrics: edge.NewMetrics(nil),
	})
}

func TestHeaderIsOneCompleteField(t *testing.T) {
	e := newEdge(newDirectory(1, 1))
	body, _ := proto.Marshal(&etcdserverpb.DeleteRangeResponse{Deleted: 3})
	var got etcdserverpb.DeleteRangeResponse
	encoded := e.Answer(9, 4, body).Buffers().Materialize()
	if err := proto.Unmarshal(encoded, &got); err != nil {
		t.Fatal(err)
	}
	want := &etcdserverpb.DeleteRangeResponse{
		Header:  &etcdserverpb.ResponseHeader{ClusterId: 0xfeed, MemberId: 0x8000_0000_0000_0001, Revision: 9, RaftTerm: 4},
		Deleted: 3,
	}
	if !proto.Equal(&got, want) {
		t.Fatalf("got %v", &got)
	}
	canonical, _ := proto.MarshalOptions{Deterministic: true}.Marshal(want)
	if string(canonical) != string(encoded) {
		t.Fatalf("encoded %x, etcd writes %x", encoded, canonical)
	}
}

func TestTermNeverFalls(t *testing.T) {
	e := newEdge(newDirectory(1, 1))
	e.Header(5, 8)
	if h := e.Header(5, 7); h.RaftTerm != 8 {
		t.Errorf("term fell to %d", h.RaftTerm)
	}
	if e.Header(0, 0).Revision != 0 {
		t.Error("a member response has a revision")
	}
	if e.Floor.Revision() != 5 {
		t.Errorf("floor at %d", e.Floor.Revision())
	}
}

func TestFloorKeepsTheHighestUnderConcurrency(t *testing.T) {
	var f edge.Floor
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 1000 {
				revision := int64(n*8 + i)
				if term := f.Raise(revision, uint64(revision)); term < uint64(revision) {
					t.Errorf("answered with term %d after %d", term, revision)
				}
				if f.Revision() < revision {
					t.Errorf("floor below %d", revision)
				}
			}
		})
	}
	wg.Wait()
	if f.Revision() != 7999 {
		t.Errorf("floor at %d", f.Revision())
	}
}

func TestErrorsAsClientsSeeThem(t *testing.T) {
	live := context.Background()
	gone, cancel := context.WithCancel(live)
	cancel()
	for _, c := range []struct {
		name string
		got  error
		code codes.Code
		text string
	}{
		{"write timed out", edge.WriteError(context.DeadlineExceeded), codes.Unavailable, "etcdserver: request timed out"},
		{"write given up by its client", edge.WriteError(context.Canceled), codes.Canceled, "etcdserver: request canceled"},
		{"write with unknown session", edge.WriteError(errs.ErrUnknownSession), codes.Unavailable, "etcdserver: request timed out"},
		{"write too large", edge.WriteError(errs.ErrPayloadTooLarge), codes.InvalidArgument, "etcdserver: request is too large"},
		{"too many requests", edge.WriteError(errs.ErrTooManyRequests), codes.Unknown, "etcdserver: too many requests"},
		{"stopping", edge.WriteError(errs.ErrStopped), codes.Unavailable, "etcdserver: server stopped"},
		{"refused by the state", edge.WriteError(errs.FromText("etcdserver: requested lease not found")), codes.NotFound, "etcdserver: requested lease not found"},
		{"wrapped", edge.WriteError(fmt.Errorf("propose: %w", errs.ErrStopped)), codes.Unavailable, "etcdserver: server stopped"},
		{"read given up by its client", edge.ReadError(gone, context.Canceled), codes.Canceled, "context canceled"},
		{"read timed out", edge.ReadError(live, context.DeadlineExceeded), codes.Unavailable, "etcdserver: request timed out"},
		{"read compacted", edge.ReadError(live, status.Error(codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")), codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{"read of a text with another code", edge.ReadError(live, status.Error(codes.Unknown, "etcdserver: mvcc: required revision is a future revision")), codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
		{"store not ready", edge.ReadError(live, errs.ErrNotReady), codes.Unavailable, "etcdserver: unhealthy cluster"},
		{"store not reachable", edge.ReadError(live, status.Error(codes.Unavailable, "connection refused")), codes.Unavailable, "etcdserver: unhealthy cluster"},
		{"not primary", edge.ReadError(live, errs.ErrNotPrimary), codes.Unavailable, "etcdserver: leader changed"},
		{"no leader", edge.ReadError(live, errs.ErrNoLeader), codes.Unavailable, "etcdserver: no leader"},
	} {
		if s := status.Convert(c.got); s.Code() != c.code || s.Message() != c.text {
			t.Errorf("%s: %v, want %v %q", c.name, c.got, c.code, c.text)
		}
	}
	if edge.WriteError(nil) != nil || edge.ReadError(gone, nil) != nil {
		t.Error("no error became one")
	}
}

func incoming(pairs ...string) context.Context {
	return metadata.NewIncomingContext(context.Background(), metadata.Pairs(pairs...))
}

func TestGateRefusesAsEtcdDoes(t *testing.T) {
	for _, c := range []struct {
		name   string
		ctx    context.Context
		leader uint64
		want   error
	}{
		{"no metadata", context.Background(), 0, nil},
		{"no leader required", incoming("client-api-version", "3.7"), 0, nil},
		{"leader required and known", incoming("hasleader", "true"), 1, nil},
		{"leader required and unknown", incoming("hasleader", "true"), 0, rpctypes.ErrGRPCNoLeader},
		{"another value", incoming("hasleader", "false"), 0, nil},
		{"client version", incoming("client-api-version", "3.\xff"), 1, rpctypes.ErrGRPCInvalidClientAPIVersion},
	} {
		e := newEdge(newDirectory(c.leader, 1))
		called := false
		_, err := e.Unary(c.ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/s/m"}, func(context.Context, any) (any, error) {
			called = true
			return nil, nil
		})
		if !errors.Is(err, c.want) || called != (c.want == nil) {
			t.Errorf("%s: %v, handler called: %v", c.name, err, called)
		}
	}
}

type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s serverStream) Context() context.Context { return s.ctx }

func TestStreamsThatRequireALeaderEndWithoutOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory(1, 3)
		e := newEdge(d)
		ctx, cancel := context.WithCancel(t.Context())
		var loops sync.WaitGroup
		loops.Go(func() { e.Watch(ctx) })
		open := func(ctx context.Context) chan error {
			ended := make(chan error, 1)
			go func() {
				ended <- e.Stream(nil, serverStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: "/s/w"}, func(_ any, s grpc.ServerStream) error {
					<-s.Context().Done()
					return s.Context().Err()
				})
			}()
			return ended
		}
		strict, patient := open(incoming("hasleader", "true")), open(context.Background())
		synctest.Wait()

		d.set(0, 4)
		time.Sleep(2900 * time.Millisecond)
		synctest.Wait()
		select {
		case err := <-strict:
			t.Fatalf("ended too early: %v", err)
		default:
		}
		time.Sleep(time.Second)
		if err := <-strict; !errors.Is(err, rpctypes.ErrGRPCNoLeader) {
			t.Errorf("ended with %v", err)
		}
		if e.Header(1, 0).RaftTerm != 4 {
			t.Error("the directory's term is not in headers")
		}
		e.Stop()
		if err := <-patient; !errors.Is(err, rpctypes.ErrGRPCStopped) {
			t.Errorf("ended with %v", err)
		}
		if err := <-open(context.Background()); !errors.Is(err, rpctypes.ErrGRPCStopped) {
			t.Errorf("a stream after the stop ended with %v", err)
		}
		cancel()
		loops.Wait()
	})
}

func TestLeaderThatReturnsResetsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory(1, 1)
		e := newEdge(d)
		ctx, cancel := context.WithCancel(t.Context())
		var loops sync.WaitGroup
		loops.Go(func() { e.Watch(ctx) })
		ended := make(chan error, 1)
		go func() {
			ended <- e.Stream(nil, serverStream{ctx: incoming("hasleader", "true")}, &grpc.StreamServerInfo{FullMethod: "/s/w"}, func(_ any, s grpc.ServerStream) error {
				<-s.Context().Done()
				return s.Context().Err()
			})
		}()
		synctest.Wait()
		for term := logid.Term(2); term < 6; term++ {
			d.set(0, term)
			time.Sleep(1800 * time.Millisecond)
			d.set(1, term)
			time.Sleep(1300 * time.Millisecond)
		}
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("ended with %v", err)
		default:
		}
		e.Stop()
		<-ended
		cancel()
		loops.Wait()
	})
}

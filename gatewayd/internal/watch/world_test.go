package watch_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/test/bufconn"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/quartet-kv/quartet/gatewayd/internal/watch"
	"github.com/quartet-kv/quartet/services/bus"
	"github.com/quartet-kv/quartet/services/clock"
	"github.com/quartet-kv/quartet/services/logid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// codec is what the gateway's own does for a watch.Message.
type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(interface{ Buffers() mem.BufferSlice }); ok {
		return m.Buffers(), nil
	}
	return c.CodecV2.Marshal(v)
}

// world is a hub behind a real gRPC server, over a model of a store. What is
// written reaches the hub when publish is called.
type world struct {
	t     testing.TB
	ctx   context.Context
	store *memoryStore
	hub   *watch.Hub
	clock *clock.Manual
	conn  *grpc.ClientConn
	floor atomic.Int64
	// metrics is what the hub counts.
	metrics *prometheus.Registry
	stop    func()
	// stopHub ends only the hub.
	stopHub func()
}

type option func(*watch.Config, *watch.Deps)

func ringBytes(n int) option   { return func(c *watch.Config, _ *watch.Deps) { c.RingBytesMax = n } }
func outboxBytes(n int) option { return func(c *watch.Config, _ *watch.Deps) { c.OutboxBytesMax = n } }
func realClock() option        { return func(_ *watch.Config, d *watch.Deps) { d.Clock = clock.Real() } }

func newWorld(t testing.TB, options ...option) *world { return newWorldWith(t, nil, options...) }

func newWorldWith(t testing.TB, extra grpc.ServerOption, options ...option) *world {
	w := &world{t: t, store: newMemoryStore(), clock: new(clock.Manual), metrics: prometheus.NewRegistry()}
	cfg := watch.DefaultConfig()
	deps := watch.Deps{
		Metrics: w.metrics, Clock: w.clock, Floor: w.floor.Load, History: w.store.history,
		Header: func(revision int64) *pb.ResponseHeader {
			w.raise(revision)
			return &pb.ResponseHeader{ClusterId: 7, MemberId: 8, Revision: revision, RaftTerm: 9}
		},
	}
	for _, o := range options {
		o(&cfg, &deps)
	}
	var err error
	w.hub, err = watch.New(cfg, deps)
	must(err)

	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	w.ctx = ctx
	listener := bufconn.Listen(1 << 16)
	serverOptions := []grpc.ServerOption{grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(grpcproto.Name)})}
	if extra != nil {
		serverOptions = append(serverOptions, extra)
	}
	server := grpc.NewServer(serverOptions...)
	pb.RegisterWatchServer(server, w.hub)
	hubCtx, stopHub := context.WithCancel(context.Background())
	hubEnded, served := make(chan struct{}), make(chan struct{})
	go func() { defer close(hubEnded); _ = w.hub.Run(hubCtx) }()
	go func() { defer close(served); _ = server.Serve(listener) }()
	w.conn, err = grpc.NewClient("passthrough:///world", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	must(err)
	w.stopHub = func() { stopHub(); <-hubEnded }
	w.stop = func() {
		w.stopHub()
		_ = w.conn.Close()
		server.Stop()
		<-served
		cancel()
		w.stop = func() {}
	}
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) raise(revision int64) {
	for old := w.floor.Load(); old < revision && !w.floor.CompareAndSwap(old, revision); old = w.floor.Load() {
	}
}

// publish brings the hub everything that was written.
func (w *world) publish() { must(w.hub.Accept(w.ctx, w.store.batch())) }

// lose lets what was written since go missing on the bus, as a Reset tells it.
func (w *world) lose() {
	b := w.store.batch()
	must(w.hub.Reset(w.ctx, bus.Position{At: logid.FromProto(b.At), Revision: b.Revision, CompactRevision: b.CompactRevision}))
}

// put writes and publishes.
func (w *world) put(ops ...op) int64 {
	r := w.store.write(ops...)
	w.publish()
	return r
}

// count is the value of a metric without labels.
func (w *world) count(name string) float64 {
	families, err := w.metrics.Gather()
	must(err)
	for _, f := range families {
		if f.GetName() == name {
			m := f.Metric[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	w.t.Fatalf("no metric %s", name)
	return 0
}

// client is one Watch call.
type client struct {
	w      *world
	stream pb.Watch_WatchClient
	cancel context.CancelFunc
}

func (w *world) client() *client { return w.clientOf(w.ctx) }

func (w *world) clientOf(ctx context.Context) *client {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := pb.NewWatchClient(w.conn).Watch(ctx)
	must(err)
	w.t.Cleanup(cancel)
	return &client{w, stream, cancel}
}

func (c *client) send(r *pb.WatchRequest) { must(c.stream.Send(r)) }

func (c *client) create(r *pb.WatchCreateRequest) {
	c.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

func (c *client) recv() *pb.WatchResponse {
	c.w.t.Helper()
	r, err := c.stream.Recv()
	if err != nil {
		c.w.t.Fatalf("receive: %v", err)
	}
	if r.Header.GetClusterId() != 7 || r.Header.MemberId != 8 || r.Header.RaftTerm != 9 {
		c.w.t.Fatalf("header is incomplete: %v", r.Header)
	}
	return r
}

// watch creates a watch and requires it to be.
func (c *client) watch(r *pb.WatchCreateRequest) *pb.WatchResponse {
	c.w.t.Helper()
	c.create(r)
	got := c.recv()
	if !got.Created || got.Canceled {
		c.w.t.Fatalf("not created: %v", got)
	}
	return got
}

func (c *client) progress() {
	c.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

func (c *client) cancelWatch(id int64) {
	c.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

// silent requires that nothing was sent before the answer to a request that is
// always answered: responses leave in order.
func (c *client) silent() {
	c.w.t.Helper()
	c.create(&pb.WatchCreateRequest{Key: []byte("x"), StartRevision: -1})
	if got := c.recv(); got.WatchId != -1 || !got.Created || !got.Canceled {
		c.w.t.Fatalf("unexpected response: %v", got)
	}
}

// settle asks for progress until all watches of the stream are synced up to the
// revision, handing every other response to each.
func (c *client) settle(revision int64, each func(*pb.WatchResponse)) {
	c.w.t.Helper()
	for {
		c.progress()
		c.create(&pb.WatchCreateRequest{Key: []byte("x"), StartRevision: -1})
		for answered := false; !answered; {
			got := c.recv()
			switch {
			case got.WatchId == -1 && got.Created:
				answered = true
			case got.WatchId == -1 && got.Header.Revision >= revision:
				return
			case got.WatchId != -1:
				each(got)
			}
		}
	}
}

func (c *client) events(n int) []seen {
	c.w.t.Helper()
	var all []seen
	for len(all) < n {
		all = append(all, eventsOf(c.recv())...)
	}
	return all
}

func eventsOf(r *pb.WatchResponse) []seen {
	var all []seen
	for _, ev := range r.Events {
		all = append(all, seen{ev.Kv.ModRevision, string(ev.Kv.Key), ev.Type == mvccpb.Event_DELETE, string(ev.Kv.Value), string(ev.PrevKv.GetValue())})
	}
	return all
}

func everything() *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}}
}

func key(k string) *pb.WatchCreateRequest { return &pb.WatchCreateRequest{Key: []byte(k)} }

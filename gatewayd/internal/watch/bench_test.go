package watch_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/gatewayd/internal/watch"
)

// BenchmarkOneKeyManyWatchers is one writer and 1000 streams on 100 connections
// that watch its key, over TCP: what an event costs is of server and clients
// together.
func BenchmarkOneKeyManyWatchers(b *testing.B) {
	for _, batch := range []int{1, 32} {
		b.Run(fmt.Sprintf("revisions=%d", batch), func(b *testing.B) { benchmarkFanOut(b, 1000, 100, batch) })
	}
}

func benchmarkFanOut(b *testing.B, watchers, connections, batch int) {
	w := newWorld(b, realClock(), func(c *watch.Config, _ *watch.Deps) { c.OutboxBytesMax = 64 << 20 })
	w.publish()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	server := grpc.NewServer(grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(grpcproto.Name)}))
	pb.RegisterWatchServer(server, w.hub)
	var ended sync.WaitGroup
	counted := &countingListener{Listener: listener}
	ended.Go(func() { _ = server.Serve(counted) })
	conns := make([]*grpc.ClientConn, connections)
	for i := range conns {
		conns[i], err = grpc.NewClient("passthrough:///"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		must(err)
	}
	var got sync.WaitGroup
	for i := range watchers {
		stream, err := pb.NewWatchClient(conns[i%connections]).Watch(w.ctx)
		must(err)
		c := &client{w: w, stream: stream}
		c.watch(key("a"))
		ended.Go(func() {
			for {
				r, err := c.stream.Recv()
				if err != nil {
					return
				}
				got.Add(-len(r.Events))
			}
		})
	}
	value := string(make([]byte, 256))
	b.ReportAllocs()
	cpu, writes := cpuTime(), counted.writes.Load()
	b.ResetTimer()
	events := 0
	for b.Loop() {
		for range batch {
			w.store.write(put("a", value))
		}
		got.Add(watchers * batch)
		events += watchers * batch
		w.publish()
		got.Wait()
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-cpu)/float64(events), "cpu-ns/event")
	b.ReportMetric(float64(counted.writes.Load()-writes)/float64(events), "writes/event")
	for _, conn := range conns {
		_ = conn.Close()
	}
	server.Stop()
	ended.Wait()
}

// BenchmarkHub is the hub alone: streams that throw away what they get.
func BenchmarkHub(b *testing.B) {
	b.Run("1000WatchersOfOneKey", func(b *testing.B) {
		benchmarkHub(b, 1000, func(int) *pb.WatchCreateRequest { return key("a") }, func(int) string { return "a" }, 1000)
	})
	b.Run("10000WatchersOf10000Keys", func(b *testing.B) {
		benchmarkHub(b, 10_000, func(i int) *pb.WatchCreateRequest { return key(fmt.Sprint("k", i)) }, func(i int) string { return fmt.Sprint("k", i%10_000) }, 1)
	})
	b.Run("10000WatchersOf10000Prefixes", func(b *testing.B) {
		benchmarkHub(b, 10_000, func(i int) *pb.WatchCreateRequest {
			return &pb.WatchCreateRequest{Key: fmt.Appendf(nil, "k%d/", i), RangeEnd: fmt.Appendf(nil, "k%d0", i)}
		}, func(i int) string { return fmt.Sprintf("k%d/x", i%10_000) }, 1)
	})
}

func benchmarkHub(b *testing.B, watchers int, want func(int) *pb.WatchCreateRequest, key func(int) string, hits int) {
	w := newWorld(b, realClock(), func(c *watch.Config, _ *watch.Deps) { c.OutboxBytesMax = 1 << 30 })
	w.publish()
	var sent atomic.Int64
	var ended sync.WaitGroup
	for i := range watchers {
		s := &sinkStream{requests: make(chan *pb.WatchRequest, 1), sent: &sent, ctx: w.ctx}
		s.requests <- &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: want(i)}}
		ended.Go(func() { _ = w.hub.Watch(s) })
	}
	waitFor(&sent, int64(watchers))
	value := string(make([]byte, 256))
	b.ReportAllocs()
	cpu := cpuTime()
	b.ResetTimer()
	n := 0
	for b.Loop() {
		w.store.write(put(key(n), value))
		n++
		w.publish()
		if n%64 == 0 {
			waitFor(&sent, int64(watchers+n*hits))
		}
	}
	waitFor(&sent, int64(watchers+n*hits))
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-cpu)/float64(n*hits), "cpu-ns/event")
	w.stop()
	ended.Wait()
}

func waitFor(n *atomic.Int64, want int64) {
	for n.Load() < want {
		time.Sleep(10 * time.Microsecond)
	}
}

// sinkStream is a stream without a wire: what it costs is the hub's own.
type sinkStream struct {
	pb.Watch_WatchServer
	ctx      context.Context
	requests chan *pb.WatchRequest
	sent     *atomic.Int64
}

func (s *sinkStream) Context() context.Context { return s.ctx }

func (s *sinkStream) Recv() (*pb.WatchRequest, error) {
	select {
	case r := <-s.requests:
		return r, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func (s *sinkStream) SendMsg(any) error {
	s.sent.Add(1)
	return nil
}

// cpuTime is what the process has used, of all cores: unlike the time that
// passed it does not depend on what else the machine does.
func cpuTime() time.Duration {
	var r syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// countingListener counts the writes of a server's connections: on a busy
// machine they tell more than time.
type countingListener struct {
	net.Listener
	writes atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countingConn{c, l}, err
}

type countingConn struct {
	net.Conn
	l *countingListener
}

func (c countingConn) Write(b []byte) (int, error) {
	c.l.writes.Add(1)
	return c.Conn.Write(b)
}

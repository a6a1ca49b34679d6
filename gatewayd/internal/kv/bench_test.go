package kv_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/gatewayd/internal/kv"
	"github.com/quartet-kv/quartet/gatewayd/internal/wire"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/store"
)

// answering hands calls to one goroutine and back, as the circle's clients do.
type answering struct {
	calls chan chan struct{}
}

func (a *answering) wait() {
	done := make(chan struct{})
	a.calls <- done
	<-done
}

func (a *answering) run() {
	for done := range a.calls {
		close(done)
	}
}

// BenchmarkEdge is what a call costs between the socket and the circle, client
// included: 100 connections, 1000 callers. The CPU figure is the one that holds
// on a busy machine.
func BenchmarkEdge(b *testing.B) {
	e := edge.New(edge.Config{Directory: directory{}, RequestTimeout: 7 * time.Second, ElectionTimeout: time.Second, Metrics: edge.NewMetrics(nil)})
	a := &answering{calls: make(chan chan struct{}, 1000)}
	go a.run()
	defer close(a.calls)
	c := &circle{}
	c.propose = func(context.Context, logpb.Command_Kind, []byte) (*storepb.Outcome, error) {
		a.wait()
		return &storepb.Outcome{Revision: 7}, nil
	}
	c.read = func(*storepb.ReadRequest, store.Floor) (store.Result, error) {
		a.wait()
		return store.Result{ReadResult: &storepb.ReadResult{Revision: 7}}, nil
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(wire.NewCodec()), grpc.UnaryInterceptor(e.Unary))
	kv.New(kv.Config{RequestBytesMax: 1 << 20, TxnOpsMax: 128}, kv.Deps{Edge: e, Session: c, Index: c, Reader: c}).Register(server)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go server.Serve(lis)
	defer server.Stop()
	var clients []pb.KVClient
	for range 100 {
		conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		clients = append(clients, pb.NewKVClient(conn))
	}
	put := &pb.PutRequest{Key: []byte("12345678"), Value: make([]byte, 256)}
	get := &pb.RangeRequest{Key: []byte("12345678"), Serializable: true}
	for name, call := range map[string]func(c pb.KVClient) error{
		"put": func(c pb.KVClient) error { _, err := c.Put(context.Background(), put); return err },
		"get": func(c pb.KVClient) error { _, err := c.Range(context.Background(), get); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := cpu()
			var callers sync.WaitGroup
			for i := range 1000 {
				callers.Go(func() {
					for n := i; n < b.N; n += 1000 {
						if err := call(clients[i%100]); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			callers.Wait()
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(fmt.Sprint("getrusage: ", err))
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

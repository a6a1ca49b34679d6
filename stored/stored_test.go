package stored_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/inproc"
	"github.com/quartet-kv/quartet/services/store/storetest"
	"github.com/quartet-kv/quartet/stored"
)

// run starts a store on a log and returns its client; it is stopped at the end
// of the test.
func run(t testing.TB, log *storetest.Log, change func(*stored.Config)) (storepb.StoreClient, func()) {
	t.Helper()
	fabric := inproc.NewFabric()
	consensuspb.RegisterConsensusServer(fabric.Server("consensus"), log)
	cfg := stored.DefaultConfig()
	cfg.Engine, cfg.MemberConsensus = stored.EngineMemory, []string{"consensus"}
	if change != nil {
		change(&cfg)
	}
	s, err := stored.New(cfg, stored.Deps{Dialer: fabric, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	server := fabric.Server("store")
	s.Register(server)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		server.Stop()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return storepb.NewStoreClient(server.Conn()), stop
}

func TestPutIsReadAndFollowed(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	log := storetest.NewLog()
	log.Append(nil)
	client, _ := run(t, log, nil)
	s := storetest.OpenSession(t, ctx, log, client, &logpb.SessionOpen{Nonce: []byte("nonce"), Owner: "test"})
	if rev := s.Put("a", "1"); rev != 2 {
		t.Fatalf("first put made revision %d", rev)
	}
	s.Put("b", "2")
	stream, err := client.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := proto.Marshal(&etcdserverpb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z")})
	if err := stream.Send(&storepb.ReadBatch{Epoch: storetest.Epoch, MinIndex: uint64(log.Last().Index), Reads: []*storepb.ReadRequest{{Id: 7, Kind: storepb.ReadRequest_RANGE, Body: body}}}); err != nil {
		t.Fatal(err)
	}
	results, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var response etcdserverpb.RangeResponse
	if err := proto.Unmarshal(results.Results[0].Body, &response); err != nil {
		t.Fatal(err)
	}
	if response.Count != 2 || string(response.Kvs[1].Value) != "2" || response.Kvs[1].ModRevision != 3 {
		t.Fatalf("range: %v", &response)
	}
}

package stored_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/store/storetest"
	"github.com/quartet-kv/quartet/stored"
)

// TestMillionKeys measures a store of 1,000,000 keys: load, restart, page, scan.
// It runs when STORED_BIG is set, to a number of keys.
func TestMillionKeys(t *testing.T) {
	n := 0
	if _, err := fmt.Sscan(os.Getenv("STORED_BIG"), &n); err != nil {
		t.Skip("set STORED_BIG to a number of keys")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cfg := config(stored.EngineBadger, t.TempDir())
	cfg.EngineProfile, cfg.SyncInterval = stored.ProfileDefault, 5*time.Second
	log := storetest.NewLog()
	log.BatchMax = 64
	r := start(t, log, cfg, grpcServer)
	s := storetest.OpenSession(t, ctx, log, r.client, &logpb.SessionOpen{Nonce: []byte("n")})
	began := time.Now()
	value := string(make([]byte, 256))
	const per = 1000
	for i := 0; i < n; i += per {
		commands := make([]*logpb.Command, per)
		for j := range commands {
			commands[j] = storetest.Put(fmt.Sprintf("/registry/pods/ns-%04d/%08d", (i+j)%1000, i+j), value)
		}
		s.Acked = s.Next - 1
		s.Propose(commands...)
		for range per {
			s.Outcome()
		}
	}
	t.Logf("load: %v", time.Since(began))
	r.stop()
	began = time.Now()
	r = start(t, log, cfg, grpcServer)
	f := &big{t: t, ctx: ctx, client: r.client, index: uint64(log.Last().Index)}
	f.page("first key after start", &etcdserverpb.RangeRequest{Key: []byte("/registry/pods/ns-0001/00000001")}, began)
	f.page("page of 500 after start", &etcdserverpb.RangeRequest{Key: []byte("/registry/"), RangeEnd: []byte("/registry0"), Limit: 100}, time.Now())
	time.Sleep(15 * time.Second)
	f.page("page of 100", &etcdserverpb.RangeRequest{Key: []byte("/registry/"), RangeEnd: []byte("/registry0"), Limit: 100}, time.Now())
	f.page("count", &etcdserverpb.RangeRequest{Key: []byte("/registry/"), RangeEnd: []byte("/registry0"), CountOnly: true}, time.Now())
	f.scan()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	status, _ := r.client.GetStatus(ctx, &storepb.GetStatusRequest{})
	t.Logf("heap %d MB, sys %d MB, disk %d MB", m.HeapAlloc>>20, m.Sys>>20, status.DiskBytes>>20)
}

type big struct {
	t      *testing.T
	ctx    context.Context
	client storepb.StoreClient
	index  uint64
}

func (f *big) page(what string, r *etcdserverpb.RangeRequest, since time.Time) {
	stream, err := f.client.Read(f.ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	body, _ := proto.Marshal(r)
	err = stream.Send(&storepb.ReadBatch{Epoch: 1, MinIndex: f.index, Reads: []*storepb.ReadRequest{{Kind: storepb.ReadRequest_RANGE, Body: body}}})
	if err != nil {
		f.t.Fatal(err)
	}
	got, err := stream.Recv()
	if err != nil {
		f.t.Fatal(err)
	}
	var resp etcdserverpb.RangeResponse
	proto.Unmarshal(got.Results[0].Body, &resp)
	f.t.Logf("%s: %v, %d keys of %d, large %t, error %q", what, time.Since(since), len(resp.Kvs), resp.Count, got.Results[0].Large, got.Results[0].Error)
}

func (f *big) scan() {
	began := time.Now()
	body, _ := proto.Marshal(&etcdserverpb.RangeRequest{Key: []byte("/registry/"), RangeEnd: []byte("/registry0")})
	stream, err := f.client.Scan(f.ctx, &storepb.ScanRequest{Range: body})
	if err != nil {
		f.t.Fatal(err)
	}
	keys := uint32(0)
	for {
		c, err := stream.Recv()
		if err != nil {
			f.t.Fatal(err)
		}
		keys += c.Keys
		if c.Last {
			break
		}
	}
	f.t.Logf("scan of %d keys: %v", keys, time.Since(began))
}

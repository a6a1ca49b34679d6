package stored_test

import (
	"context"
	"fmt"
	"log/slog"
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
	for _, budget := range []int64{cfg.KeyspaceBytes, 1 << 30} {
		cfg.KeyspaceBytes = budget
		t.Run(fmt.Sprintf("keyspace=%dMiB", budget>>20), func(t *testing.T) { measure(t, ctx, log, cfg) })
	}
}

// measure starts a store on what it has and asks it this and that.
func measure(t *testing.T, ctx context.Context, log *storetest.Log, cfg stored.Config) {
	all := func() *etcdserverpb.RangeRequest {
		return &etcdserverpb.RangeRequest{Key: []byte("/registry/"), RangeEnd: []byte("/registry0")}
	}
	page, count := all(), all()
	page.Limit, count.CountOnly = 100, true
	filled := filledLog{slog.DiscardHandler, make(chan struct{}, 1)}
	began := time.Now()
	r := startWith(t, log, cfg, stored.Deps{Log: slog.New(filled)}, grpcServer)
	defer r.stop()
	f := &big{t: t, ctx: ctx, client: r.client, index: uint64(log.Last().Index)}
	f.page("first key after start", &etcdserverpb.RangeRequest{Key: []byte("/registry/pods/ns-0001/00000001")}, began)
	f.page("page of 100 after start", page, time.Now())
	select {
	case <-filled.done:
		t.Logf("keyspace filled after %v", time.Since(began))
	case <-ctx.Done():
		t.Fatal("the keyspace is never filled")
	}
	f.page("page of 100", page, time.Now())
	f.page("count", count, time.Now())
	f.scan()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	status, err := r.client.GetStatus(ctx, &storepb.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("heap %d MB with the log of the test, disk %d MB", m.HeapAlloc>>20, status.DiskBytes>>20)
}

// filledLog hears when the keyspace is filled, as far as it goes.
type filledLog struct {
	slog.Handler
	done chan struct{}
}

func (f filledLog) Enabled(context.Context, slog.Level) bool { return true }

func (f filledLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "keyspace filled" {
		f.done <- struct{}{}
	}
	return nil
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
	err = stream.Send(&storepb.ReadBatch{Epoch: 1, MinIndex: f.index, Reads: []*storepb.ReadRequest{{Kind: storepb.ReadRequest_RANGE, Body: encode(f.t, r)}}})
	if err != nil {
		f.t.Fatal(err)
	}
	got, err := stream.Recv()
	if err != nil {
		f.t.Fatal(err)
	}
	var resp etcdserverpb.RangeResponse
	if err := proto.Unmarshal(got.Results[0].Body, &resp); err != nil {
		f.t.Fatal(err)
	}
	f.t.Logf("%s: %v, %d keys of %d, large %t, error %q", what, time.Since(since), len(resp.Kvs), resp.Count, got.Results[0].Large, got.Results[0].Error)
}

func (f *big) scan() {
	began := time.Now()
	body := encode(f.t, &etcdserverpb.RangeRequest{Key: []byte("/registry/"), RangeEnd: []byte("/registry0")})
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

func encode(t *testing.T, m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

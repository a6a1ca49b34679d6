package kv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/gatewayd/internal/kv"
	"github.com/quartet-kv/quartet/gatewayd/internal/wire"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
	"github.com/quartet-kv/quartet/services/store"
)

// circle answers in place of the daemons behind the gateway, and remembers what
// it was asked.
type circle struct {
	propose   func(ctx context.Context, kind logpb.Command_Kind, body []byte) (*storepb.Outcome, error)
	read      func(r *storepb.ReadRequest, floor store.Floor) (store.Result, error)
	scan      func(r *storepb.ScanRequest, each func(*storepb.ScanChunk) error) error
	compacted func(ctx context.Context, revision int64) error

	mu      sync.Mutex
	indexed int // read indexes asked
	index   logid.ID
	term    logid.Term
	indexer error
}

func (c *circle) Propose(ctx context.Context, kind logpb.Command_Kind, body []byte) (*storepb.Outcome, error) {
	return c.propose(ctx, kind, body)
}

func (c *circle) Wait(context.Context) (logid.ID, logid.Term, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.indexed++
	return c.index, c.term, c.indexer
}

func (c *circle) Read(_ context.Context, r *storepb.ReadRequest, floor store.Floor) (store.Result, error) {
	return c.read(r, floor)
}

func (c *circle) Scan(_ context.Context, r *storepb.ScanRequest, each func(*storepb.ScanChunk) error) error {
	return c.scan(r, each)
}

type directory struct{}

func (directory) View() cluster.View       { return cluster.View{Leader: 1} }
func (directory) Changed() <-chan struct{} { return nil }

type gateway struct {
	*circle
	edge *edge.Edge
	addr string
}

const requestBytesMax = 4096

func start(t *testing.T, requestTimeout time.Duration) *gateway {
	t.Helper()
	g := &gateway{circle: &circle{index: logid.ID{Epoch: 3, Index: 40, Term: 6}, term: 6}}
	g.edge = edge.New(edge.Config{
		Identity:  edge.Identity{ClusterID: 0xc1, MemberID: 0xe1},
		Directory: directory{}, RequestTimeout: requestTimeout, ElectionTimeout: time.Second, Metrics: edge.NewMetrics(nil),
	})
	server := grpc.NewServer(grpc.ForceServerCodecV2(wire.NewCodec()), grpc.UnaryInterceptor(g.edge.Unary), grpc.StreamInterceptor(g.edge.Stream),
		grpc.MaxSendMsgSize(math.MaxInt32))
	kv.New(kv.Config{RequestBytesMax: requestBytesMax, TxnOpsMax: 8}, kv.Deps{
		Edge: g.edge, Session: g.circle, Index: g.circle, Reader: g.circle,
		WaitCompacted: func(ctx context.Context, revision int64) error { return g.compacted(ctx, revision) },
	}).Register(server)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.addr = lis.Addr().String()
	go server.Serve(lis)
	t.Cleanup(server.Stop)
	return g
}

func (g *gateway) client(t *testing.T) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{g.addr}, DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// raw is the generated client, which retries nothing.
func (g *gateway) raw(t *testing.T) pb.KVClient {
	t.Helper()
	conn, err := grpc.NewClient(g.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return pb.NewKVClient(conn)
}

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPutPassesBytesThrough(t *testing.T) {
	g := start(t, time.Second)
	prev := &mvccpb.KeyValue{Key: []byte("k"), Value: []byte("old"), ModRevision: 4, CreateRevision: 2, Version: 3}
	var kind logpb.Command_Kind
	var asked pb.PutRequest
	g.propose = func(_ context.Context, k logpb.Command_Kind, body []byte) (*storepb.Outcome, error) {
		kind = k
		return &storepb.Outcome{Revision: 9, Body: encode(t, &pb.PutResponse{PrevKv: prev})}, proto.Unmarshal(body, &asked)
	}
	g.edge.Floor.RaiseTerm(6)
	resp, err := g.client(t).Put(t.Context(), "k", "new", clientv3.WithPrevKV(), clientv3.WithLease(7))
	if err != nil {
		t.Fatal(err)
	}
	if kind != logpb.Command_PUT || !proto.Equal(&asked, &pb.PutRequest{Key: []byte("k"), Value: []byte("new"), PrevKv: true, Lease: 7}) {
		t.Errorf("proposed %v %v", kind, &asked)
	}
	if !proto.Equal(resp.Header, &pb.ResponseHeader{ClusterId: 0xc1, MemberId: 0xe1, Revision: 9, RaftTerm: 6}) || !proto.Equal(resp.PrevKv, prev) {
		t.Errorf("answered %v", resp)
	}
}

func TestWritesProposeTheirKind(t *testing.T) {
	g := start(t, time.Second)
	var kind logpb.Command_Kind
	g.propose = func(_ context.Context, k logpb.Command_Kind, _ []byte) (*storepb.Outcome, error) {
		kind = k
		return &storepb.Outcome{Revision: 2}, nil
	}
	c := g.client(t)
	for want, call := range map[logpb.Command_Kind]func() error{
		logpb.Command_DELETE_RANGE: func() error { _, err := c.Delete(t.Context(), "k"); return err },
		logpb.Command_COMPACT:      func() error { _, err := c.Compact(t.Context(), 5); return err },
		logpb.Command_TXN:          func() error { _, err := c.Txn(t.Context()).Then(clientv3.OpDelete("k")).Commit(); return err },
	} {
		if err := call(); err != nil || kind != want {
			t.Errorf("proposed %v, want %v: %v", kind, want, err)
		}
	}
}

func TestWriteErrors(t *testing.T) {
	g := start(t, 50*time.Millisecond)
	c := g.raw(t)
	for _, tc := range []struct {
		name string
		err  error // of the session; nil lets it wait for ever
		code codes.Code
		text string
	}{
		{"no outcome in time", nil, codes.Unavailable, "etcdserver: request timed out"},
		{"too many requests", errs.ErrTooManyRequests, codes.Unknown, "etcdserver: too many requests"},
		{"outcome lost", rpctypes.ErrGRPCTimeout, codes.Unavailable, "etcdserver: request timed out"},
		{"no such lease", errs.FromText("etcdserver: requested lease not found"), codes.NotFound, "etcdserver: requested lease not found"},
		{"stopping", errs.ErrStopped, codes.Unavailable, "etcdserver: server stopped"},
	} {
		g.propose = func(ctx context.Context, _ logpb.Command_Kind, _ []byte) (*storepb.Outcome, error) {
			if tc.err != nil {
				return nil, tc.err
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		_, err := c.Put(t.Context(), &pb.PutRequest{Key: []byte("k")})
		if s := status.Convert(err); s.Code() != tc.code || s.Message() != tc.text {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestLargestRequest(t *testing.T) {
	g := start(t, time.Second)
	g.propose = func(context.Context, logpb.Command_Kind, []byte) (*storepb.Outcome, error) {
		return &storepb.Outcome{Revision: 2}, nil
	}
	c := g.client(t)
	if _, err := c.Put(t.Context(), "k", string(make([]byte, requestBytesMax-64))); err != nil {
		t.Errorf("just below the limit: %v", err)
	}
	if _, err := c.Put(t.Context(), "k", string(make([]byte, requestBytesMax))); !errors.Is(err, rpctypes.ErrRequestTooLarge) {
		t.Errorf("above the limit: %v", err)
	}
	if _, err := c.Txn(t.Context()).Then(clientv3.OpPut("k", string(make([]byte, requestBytesMax)))).Commit(); !errors.Is(err, rpctypes.ErrRequestTooLarge) {
		t.Errorf("transaction above the limit: %v", err)
	}
	g.read = func(*storepb.ReadRequest, store.Floor) (store.Result, error) {
		return store.Result{ReadResult: &storepb.ReadResult{Revision: 2}}, nil
	}
	if _, err := c.Get(t.Context(), string(make([]byte, requestBytesMax))); err != nil {
		t.Errorf("a read has no such limit: %v", err)
	}
}

func TestPhysicalCompactionWaits(t *testing.T) {
	g := start(t, time.Second)
	g.propose = func(context.Context, logpb.Command_Kind, []byte) (*storepb.Outcome, error) {
		return &storepb.Outcome{Revision: 9}, nil
	}
	waited := int64(0)
	g.compacted = func(_ context.Context, revision int64) error { waited = revision; return nil }
	if _, err := g.client(t).Compact(t.Context(), 5); err != nil || waited != 0 {
		t.Errorf("waited for %d: %v", waited, err)
	}
	resp, err := g.client(t).Compact(t.Context(), 5, clientv3.WithCompactPhysical())
	if err != nil || waited != 5 || resp.Header.Revision != 9 {
		t.Errorf("waited for %d: %v %v", waited, resp, err)
	}
}

func TestReadsCarryTheFloor(t *testing.T) {
	g := start(t, time.Second)
	g.propose = func(context.Context, logpb.Command_Kind, []byte) (*storepb.Outcome, error) {
		return &storepb.Outcome{Revision: 30}, nil
	}
	var floor store.Floor
	var asked *storepb.ReadRequest
	g.read = func(r *storepb.ReadRequest, f store.Floor) (store.Result, error) {
		asked, floor = r, f
		return store.Result{ReadResult: &storepb.ReadResult{Revision: 31, Body: encode(t, &pb.RangeResponse{Count: 1, Kvs: []*mvccpb.KeyValue{{Key: []byte("k")}}})}, Term: 7}, nil
	}
	c := g.client(t)
	if _, err := c.Put(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	resp, err := c.Get(t.Context(), "k", clientv3.WithSerializable())
	if err != nil {
		t.Fatal(err)
	}
	if floor != (store.Floor{Revision: 30}) || g.indexed != 0 || asked.Kind != storepb.ReadRequest_RANGE {
		t.Errorf("serializable read: floor %+v, %d read indexes, %v", floor, g.indexed, asked.Kind)
	}
	if resp.Header.Revision != 31 || resp.Header.RaftTerm != 7 || resp.Count != 1 || string(resp.Kvs[0].Key) != "k" {
		t.Errorf("answered %v", resp)
	}
	if _, err = c.Get(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if floor != (store.Floor{Index: 40, Epoch: 3, Revision: 31}) || g.indexed != 1 {
		t.Errorf("linearizable read: floor %+v, %d read indexes", floor, g.indexed)
	}
}

func TestReadErrors(t *testing.T) {
	g := start(t, 50*time.Millisecond)
	c := g.raw(t)
	g.read = func(*storepb.ReadRequest, store.Floor) (store.Result, error) {
		return store.Result{ReadResult: &storepb.ReadResult{Revision: 9}}, errs.FromText("etcdserver: mvcc: required revision has been compacted")
	}
	_, err := c.Range(t.Context(), &pb.RangeRequest{Key: []byte("k"), Revision: 1})
	if s := status.Convert(err); s.Code() != codes.OutOfRange || s.Message() != "etcdserver: mvcc: required revision has been compacted" {
		t.Errorf("compacted: %v", err)
	}
	g.indexer = context.DeadlineExceeded
	_, err = c.Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
	if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "etcdserver: request timed out" {
		t.Errorf("no read index in time: %v", err)
	}
}

func TestReadOnlyTransactionsPassTheLogBy(t *testing.T) {
	g := start(t, time.Second)
	var asked *storepb.ReadRequest
	g.read = func(r *storepb.ReadRequest, _ store.Floor) (store.Result, error) {
		asked = r
		return store.Result{ReadResult: &storepb.ReadResult{Revision: 5, Body: encode(t, &pb.TxnResponse{Succeeded: true})}}, nil
	}
	c := g.client(t)
	for i, serializable := range []bool{false, true} {
		get := clientv3.OpGet("k")
		if serializable {
			get = clientv3.OpGet("k", clientv3.WithSerializable())
		}
		resp, err := c.Txn(t.Context()).If(clientv3.Compare(clientv3.Version("k"), "=", 0)).Then(get).Commit()
		if err != nil || !resp.Succeeded || asked.Kind != storepb.ReadRequest_TXN {
			t.Fatalf("%v %v, asked %v", resp, err, asked)
		}
		if g.indexed != 1 {
			t.Errorf("transaction %d: %d read indexes", i, g.indexed)
		}
	}
}

func TestTransactionWithALargeAnswerTakesTheLog(t *testing.T) {
	g := start(t, time.Second)
	g.read = func(*storepb.ReadRequest, store.Floor) (store.Result, error) {
		return store.Result{ReadResult: &storepb.ReadResult{Revision: 5, Large: true}}, nil
	}
	g.propose = func(_ context.Context, k logpb.Command_Kind, _ []byte) (*storepb.Outcome, error) {
		return &storepb.Outcome{Revision: 6, Body: encode(t, &pb.TxnResponse{Succeeded: k == logpb.Command_TXN})}, nil
	}
	resp, err := g.client(t).Txn(t.Context()).Then(clientv3.OpGet("k")).Commit()
	if err != nil || !resp.Succeeded || resp.Header.Revision != 6 {
		t.Fatalf("%v %v", resp, err)
	}
}

// chunks is a scan of n keys, so many in the first chunk as asked and 100 in
// each other.
func chunks(t *testing.T, n int) func(*storepb.ScanRequest, func(*storepb.ScanChunk) error) error {
	return func(r *storepb.ScanRequest, each func(*storepb.ScanChunk) error) error {
		size := 100
		if r.FirstKeys > 0 {
			size = int(r.FirstKeys)
		}
		for from := 0; ; from, size = from+size, 100 {
			chunk := &storepb.ScanChunk{Revision: 77, RaftTerm: 8}
			var kvs pb.RangeResponse
			for i := from; i < min(n, from+size); i++ {
				kvs.Kvs = append(kvs.Kvs, &mvccpb.KeyValue{Key: fmt.Appendf(nil, "k%06d", i), Value: bytes.Repeat([]byte("v"), 100)})
			}
			chunk.Kvs, chunk.Keys = encode(t, &kvs), uint32(len(kvs.Kvs))
			if chunk.Last = from+size >= n; chunk.Last {
				chunk.More, chunk.Count = true, int64(n+5)
			}
			if err := each(chunk); err != nil || chunk.Last {
				return err
			}
		}
	}
}

func TestLargeRangeIsPutTogether(t *testing.T) {
	g := start(t, time.Second)
	g.read = func(*storepb.ReadRequest, store.Floor) (store.Result, error) {
		return store.Result{ReadResult: &storepb.ReadResult{Revision: 77, Large: true}}, nil
	}
	for _, n := range []int{0, 1, 100, 101, 5000} {
		var floor *storepb.ScanRequest
		scan := chunks(t, n)
		g.scan = func(r *storepb.ScanRequest, each func(*storepb.ScanChunk) error) error {
			floor = r
			return scan(r, each)
		}
		resp, err := g.client(t).Get(t.Context(), "k", clientv3.WithPrefix(), clientv3.WithLimit(int64(n)))
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.Kvs) != n || !resp.More || resp.Count != int64(n+5) || resp.Header.Revision != 77 || resp.Header.RaftTerm != 8 || resp.Header.MemberId != 0xe1 {
			t.Errorf("%d keys: %d, more %v, count %d, %v", n, len(resp.Kvs), resp.More, resp.Count, resp.Header)
		}
		if n > 0 && string(resp.Kvs[n-1].Key) != fmt.Sprintf("k%06d", n-1) {
			t.Errorf("last key is %q", resp.Kvs[n-1].Key)
		}
		if floor.MinIndex != 40 || floor.Epoch != 3 {
			t.Errorf("scanned from %v", floor)
		}
	}
}

func receive(t *testing.T, c pb.KVClient, r *pb.RangeRequest) ([]*pb.RangeResponse, error) {
	t.Helper()
	stream, err := c.RangeStream(t.Context(), r)
	if err != nil {
		return nil, err
	}
	var all []*pb.RangeResponse
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, m.RangeResponse)
	}
}

func TestRangeStream(t *testing.T) {
	g := start(t, time.Second)
	g.scan = chunks(t, 250)
	got, err := receive(t, g.raw(t), &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 || len(got[0].Kvs) > 10 {
		t.Fatalf("%d chunks, %d keys in the first", len(got), len(got[0].Kvs))
	}
	var merged pb.RangeResponse
	for i, m := range got {
		if last := i == len(got)-1; (m.Header != nil) != last || m.More != last || (m.Count != 0) != last {
			t.Errorf("chunk %d: header %v, more %v, count %d", i, m.Header, m.More, m.Count)
		}
		proto.Merge(&merged, m)
	}
	if len(merged.Kvs) != 250 || merged.Header.Revision != 77 || merged.Header.ClusterId != 0xc1 || merged.Count != 255 {
		t.Errorf("merged: %d keys, %v, count %d", len(merged.Kvs), merged.Header, merged.Count)
	}
}

func TestRangeStreamOfACount(t *testing.T) {
	g := start(t, time.Second)
	g.read = func(*storepb.ReadRequest, store.Floor) (store.Result, error) {
		return store.Result{ReadResult: &storepb.ReadResult{Revision: 5, Body: encode(t, &pb.RangeResponse{Count: 12})}}, nil
	}
	got, err := receive(t, g.raw(t), &pb.RangeRequest{Key: []byte("k"), CountOnly: true})
	if err != nil || len(got) != 1 || got[0].Count != 12 || got[0].Header.GetRevision() != 5 {
		t.Fatalf("%v %v", got, err)
	}
}

func TestRangeStreamErrors(t *testing.T) {
	g := start(t, time.Second)
	g.scan = func(r *storepb.ScanRequest, each func(*storepb.ScanChunk) error) error {
		for range 2 {
			if err := each(&storepb.ScanChunk{Kvs: encode(t, &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Key: []byte("k")}}}), Keys: 1}); err != nil {
				return err
			}
		}
		return status.Error(codes.Unknown, "etcdserver: mvcc: required revision has been compacted")
	}
	c := g.raw(t)
	got, err := receive(t, c, &pb.RangeRequest{Key: []byte("k")})
	if s := status.Convert(err); len(got) != 2 || s.Code() != codes.OutOfRange || s.Message() != "etcdserver: mvcc: required revision has been compacted" {
		t.Errorf("compacted between chunks: %v after %d chunks", err, len(got))
	}
	if _, err := receive(t, c, &pb.RangeRequest{Key: []byte("k"), SortOrder: pb.RangeRequest_DESCEND}); status.Code(err) != codes.Unimplemented {
		t.Errorf("sorted: %v", err)
	}
	if _, err := receive(t, c, &pb.RangeRequest{}); status.Convert(err).Message() != "etcdserver: key is not provided" {
		t.Errorf("without key: %v", err)
	}
}

func TestChecksReachTheClient(t *testing.T) {
	g := start(t, time.Second)
	c := g.client(t)
	two := clientv3.OpPut("k", "")
	for _, tc := range []struct {
		name string
		err  error
		want error
	}{
		{"range", func() error { _, err := c.Get(t.Context(), ""); return err }(), rpctypes.ErrEmptyKey},
		{"put", func() error { _, err := c.Put(t.Context(), "", ""); return err }(), rpctypes.ErrEmptyKey},
		{"delete", func() error { _, err := c.Delete(t.Context(), ""); return err }(), rpctypes.ErrEmptyKey},
		{"ignored value", func() error { _, err := c.Put(t.Context(), "k", "v", clientv3.WithIgnoreValue()); return err }(), rpctypes.ErrValueProvided},
		{"ignored lease", func() error {
			_, err := c.Put(t.Context(), "k", "v", clientv3.WithIgnoreLease(), clientv3.WithLease(1))
			return err
		}(), rpctypes.ErrLeaseProvided},
		{"duplicate key", func() error { _, err := c.Txn(t.Context()).Then(two, two).Commit(); return err }(), rpctypes.ErrDuplicateKey},
		{"too many operations", func() error {
			_, err := c.Txn(t.Context()).Then(two, two, two, two, two, two, two, two, two).Commit()
			return err
		}(), rpctypes.ErrTooManyOps},
	} {
		if !errors.Is(tc.err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, tc.err, tc.want)
		}
	}
}

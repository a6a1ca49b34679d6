package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/inproc"
	"github.com/quartet-kv/quartet/services/store"
)

// echoes is a cluster of stores that answer a read with its body.
type echoes struct {
	fabric *inproc.Fabric
	stores map[uint64]*echo
	reader *store.Reader
	stop   func()
}

type echo struct {
	storepb.UnimplementedStoreServer
	id      uint64
	server  *inproc.Server
	silent  atomic.Bool
	unready atomic.Bool
	applied atomic.Uint64
	raised  chan struct{} // closed when applied has changed
	asked   chan struct{} // tells that a silent store was asked
	batches atomic.Int64
	scans   atomic.Int64
}

type observed struct {
	consensuspb.UnimplementedConsensusServer
	members []*consensuspb.Member
}

func (o *observed) Observe(_ *consensuspb.ObserveRequest, stream consensuspb.Consensus_ObserveServer) error {
	err := stream.Send(&consensuspb.Status{ClusterId: 1, MemberId: 1, Epoch: 1, Term: 3, Leader: 1, Role: consensuspb.Status_LEADER, Members: o.members})
	if err == nil {
		<-stream.Context().Done()
	}
	return err
}

func newEchoes(t testing.TB, c store.ReaderConfig) *echoes {
	e := &echoes{fabric: inproc.NewFabric(), stores: make(map[uint64]*echo)}
	o := &observed{}
	for id := uint64(1); id <= 3; id++ {
		o.members = append(o.members, &consensuspb.Member{Id: id, ConsensusAddress: "c1", StoreAddress: address(id)})
		e.stores[id] = &echo{id: id, raised: make(chan struct{}), asked: make(chan struct{}, 1)}
		e.serve(id)
	}
	s := e.fabric.Server("c1")
	consensuspb.RegisterConsensusServer(s, o)
	d := cluster.New(cluster.Config{Seeds: []string{"c1"}, Dialer: e.fabric})
	e.reader = store.NewReader(c, d, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = d.Run(ctx) })
	wg.Go(func() { _ = e.reader.Run(ctx) })
	e.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(func() {
		e.stop()
		s.Stop()
		for _, s := range e.stores {
			s.server.Stop()
		}
	})
	return e
}

func address(id uint64) string { return fmt.Sprintf("s%d", id) }

func (e *echoes) serve(id uint64) {
	s := e.stores[id]
	s.server = e.fabric.Server(address(id))
	storepb.RegisterStoreServer(s.server, s)
}

func (s *echo) Read(stream storepb.Store_ReadServer) error {
	for {
		b, err := stream.Recv()
		if err != nil {
			return nil
		}
		s.batches.Add(1)
		if s.silent.Load() {
			select {
			case s.asked <- struct{}{}:
			default:
			}
			continue
		}
		if b.MinIndex > s.applied.Load() {
			go func() { // answered out of order, as a store does
				select {
				case <-s.raised:
					_ = stream.Send(s.answer(b))
				case <-stream.Context().Done():
				}
			}()
			continue
		}
		if err := stream.Send(s.answer(b)); err != nil {
			return err
		}
	}
}

func (s *echo) answer(b *storepb.ReadBatch) *storepb.ReadResults {
	r := &storepb.ReadResults{RaftTerm: 3}
	for _, read := range b.Reads {
		result := &storepb.ReadResult{Id: read.Id, Revision: 9, Body: read.Body}
		switch {
		case s.unready.Load():
			result.Error = errs.Text(errs.ErrNotReady)
		case string(read.Body) == "compacted":
			result.Error = errs.Text(rpctypes.ErrGRPCCompacted)
		}
		r.Results = append(r.Results, result)
	}
	return r
}

func (s *echo) Scan(_ *storepb.ScanRequest, stream storepb.Store_ScanServer) error {
	s.scans.Add(1)
	if s.unready.Load() {
		return errs.ErrNotReady
	}
	for i := range 3 {
		if i == 2 && s.silent.Load() {
			return status.Error(codes.Unavailable, "gone")
		}
		if err := stream.Send(&storepb.ScanChunk{Kvs: []byte{byte(i)}, Last: i == 2}); err != nil {
			return err
		}
	}
	return nil
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func ask(body string) *storepb.ReadRequest {
	return &storepb.ReadRequest{Kind: storepb.ReadRequest_RANGE, Body: []byte(body)}
}

func TestEachReadGetsItsOwnAnswer(t *testing.T) {
	e := newEchoes(t, store.ReaderConfig{Prefer: 2, BatchReadsMax: 7})
	ctx := within(t)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := range 100 {
				body := fmt.Sprintf("%d-%d", w, i)
				r, err := e.reader.Read(ctx, ask(body), store.Floor{})
				if err != nil || string(r.Body) != body || r.Term != 3 || r.Revision != 9 {
					t.Errorf("%s: %v, %v", body, r, err)
				}
			}
		})
	}
	wg.Wait()
	if n := e.stores[1].batches.Load() + e.stores[3].batches.Load(); n != 0 {
		t.Errorf("%d messages went to stores that are not preferred", n)
	}
}

func TestStoresErrorComesWithTheResult(t *testing.T) {
	e := newEchoes(t, store.ReaderConfig{})
	r, err := e.reader.Read(within(t), ask("compacted"), store.Floor{})
	if !errors.Is(err, rpctypes.ErrGRPCCompacted) || r.ReadResult == nil || r.Revision != 9 || r.Member != 1 {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestSerializableReadDoesNotWaitForAPosition(t *testing.T) {
	e := newEchoes(t, store.ReaderConfig{Prefer: 1, SlowAfter: time.Hour})
	linearizable := make(chan error, 1)
	go func() {
		_, err := e.reader.Read(within(t), ask("linearizable"), store.Floor{Epoch: 1, Index: 5})
		linearizable <- err
	}()
	if _, err := e.reader.Read(within(t), ask("serializable"), store.Floor{}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-linearizable:
		t.Fatalf("answered below its floor: %v", err)
	default:
	}
	e.stores[1].applied.Store(5)
	close(e.stores[1].raised)
	if err := <-linearizable; err != nil {
		t.Fatal(err)
	}
}

func TestReadGoesElsewhereWhenAStoreIsSlowGoneOrNotReady(t *testing.T) {
	for name, breakIt := range map[string]func(*echoes){
		"slow":      func(e *echoes) { e.stores[1].silent.Store(true) },
		"gone":      func(e *echoes) { e.stores[1].server.Stop() },
		"not ready": func(e *echoes) { e.stores[1].unready.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEchoes(t, store.ReaderConfig{Prefer: 1, SlowAfter: 40 * time.Millisecond, BrokenPause: 5 * time.Millisecond})
			if r, err := e.reader.Read(within(t), ask("before"), store.Floor{}); err != nil || r.Member != 1 {
				t.Fatal(r, err)
			}
			breakIt(e)
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					r, err := e.reader.Read(within(t), ask(fmt.Sprint(i)), store.Floor{})
					if err != nil || r.Member == 1 {
						t.Errorf("answer %v, %v", r, err)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestReadSurvivesARestartOfTheOnlyStores(t *testing.T) {
	e := newEchoes(t, store.ReaderConfig{BrokenPause: time.Millisecond})
	for id := range e.stores {
		e.stores[id].server.Stop()
	}
	result := make(chan error, 1)
	go func() {
		_, err := e.reader.Read(within(t), ask("x"), store.Floor{})
		result <- err
	}()
	e.serve(2)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

func TestWithdrawnReadLeavesNothingBehind(t *testing.T) {
	e := newEchoes(t, store.ReaderConfig{Prefer: 1, PendingReadsMax: 4, InflightBatchesMax: 1, SlowAfter: time.Hour})
	for range 10 {
		ctx, cancel := context.WithTimeout(within(t), time.Millisecond)
		if _, err := e.reader.Read(ctx, ask("x"), store.Floor{Index: 5}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		cancel()
	}
	e.stores[1].applied.Store(5)
	close(e.stores[1].raised)
	for range 10 {
		if _, err := e.reader.Read(within(t), ask("x"), store.Floor{Index: 5}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadEndsWithRun(t *testing.T) {
	e := newEchoes(t, store.ReaderConfig{Prefer: 1, SlowAfter: time.Hour})
	e.stores[1].silent.Store(true)
	result := make(chan error, 1)
	go func() {
		_, err := e.reader.Read(within(t), ask("x"), store.Floor{})
		result <- err
	}()
	<-e.stores[1].asked
	e.stop()
	if err := <-result; !errors.Is(err, errs.ErrStopped) {
		t.Errorf("got %v", err)
	}
}

func TestScanFailsOverOnlyBeforeItsFirstChunk(t *testing.T) {
	e := newEchoes(t, store.ReaderConfig{Prefer: 1})
	e.stores[1].unready.Store(true)
	var got []byte
	each := func(c *storepb.ScanChunk) error { got = append(got, c.Kvs...); return nil }
	if err := e.reader.Scan(within(t), &storepb.ScanRequest{}, each); err != nil || string(got) != "\x00\x01\x02" {
		t.Fatalf("got %q, %v", got, err)
	}
	e.stores[1].unready.Store(false)
	e.stores[1].silent.Store(true) // breaks in the middle
	got = nil
	if err := e.reader.Scan(within(t), &storepb.ScanRequest{}, each); status.Code(err) != codes.Unavailable || len(got) != 2 {
		t.Fatalf("got %q, %v", got, err)
	}
}

func BenchmarkRead(b *testing.B) {
	e := newEchoes(b, store.ReaderConfig{})
	read := ask("0123456789")
	b.SetParallelism(100)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := e.reader.Read(context.Background(), read, store.Floor{}); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/float64(e.stores[1].batches.Load()), "reads/message")
}

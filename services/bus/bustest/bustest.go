// Package bustest is what every bus must do, as one suite, and the faults that
// a bus may have.
package bustest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/bus"
)

// Limits are those of the queues of a bus under test.
var Limits = bus.QueueLimits{BatchesMax: 64, BytesMax: 16 << 20}

// patience bounds every wait of the suite.
const patience = 20 * time.Second

// Run checks a bus. Open makes a new one whose subscriptions have Limits, and
// ends it with the test.
func Run(t *testing.T, open func(t *testing.T) (bus.Publisher, bus.Subscriber)) {
	for name, check := range map[string]func(*testing.T, bus.Publisher, bus.Subscriber){
		"EveryoneHearsInOrder":       everyoneHearsInOrder,
		"BatchesArriveUnchanged":     batchesArriveUnchanged,
		"OldNewsIsNotRepeated":       oldNewsIsNotRepeated,
		"SlowReceiverLapses":         slowReceiverLapses,
		"LargeBatchComesOrIsPulled":  largeBatchComesOrIsPulled,
		"RecvEndsWithContextOrClose": recvEndsWithContextOrClose,
	} {
		t.Run(name, func(t *testing.T) {
			p, s := open(t)
			check(t, p, s)
		})
	}
}

// Batch is the i-th batch of a simple history: index i, revision i, one event.
func Batch(i uint64) *buspb.Batch {
	return &buspb.Batch{
		ClusterId: 1, At: &logpb.LogID{Epoch: 1, Index: i, Term: 1}, PrevIndex: i - 1,
		PrevRevision: int64(i) - 1, Revision: int64(i), RaftTerm: 1,
		Revisions: []*buspb.Revision{{Revision: int64(i), Events: []*buspb.Event{{Key: []byte{byte(i)}, Kv: []byte("kv")}}}},
	}
}

func heartbeat(i uint64) *buspb.Batch {
	b := Batch(i)
	b.PrevIndex, b.PrevRevision, b.Revisions = i, int64(i), nil
	return b
}

func subscribe(t *testing.T, s bus.Subscriber) bus.Subscription {
	t.Helper()
	sub, err := s.Subscribe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Close)
	return sub
}

func publish(t *testing.T, p bus.Publisher, b *buspb.Batch) {
	t.Helper()
	if err := p.Publish(context.Background(), b); err != nil {
		t.Fatalf("publish: %v", err)
	}
}

// join publishes heartbeats at index 0 until every subscription hears them, and
// then one at index 1 that ends them. Publishing may fail until then.
func join(t *testing.T, p bus.Publisher, subs ...bus.Subscription) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var hearing, joined sync.WaitGroup
	done := make(chan struct{})
	for _, sub := range subs {
		hearing.Add(1)
		joined.Go(func() {
			heard := sync.OnceFunc(hearing.Done)
			defer heard()
			for {
				b, err := sub.Recv(ctx)
				if err != nil && !errors.Is(err, bus.ErrLapsed) {
					t.Errorf("join: %v", err)
					return
				}
				if b != nil {
					heard()
				}
				if b.GetAt().GetIndex() == 1 {
					return
				}
			}
		})
	}
	go func() { hearing.Wait(); close(done) }()
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		_ = p.Publish(ctx, heartbeat(0))
		select {
		case <-tick.C:
			continue
		case <-done:
		}
		tick.Stop()
		break
	}
	publish(t, p, heartbeat(1))
	joined.Wait()
}

func recv(t *testing.T, sub bus.Subscription) (*buspb.Batch, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return sub.Recv(ctx)
}

// mustRecv takes the next batch. A bus may say at any time that something may
// have been missed (a connection that reports itself late does); if something
// was, the batch that the caller expects does not come.
func mustRecv(t *testing.T, sub bus.Subscription) *buspb.Batch {
	t.Helper()
	for {
		b, err := recv(t, sub)
		if errors.Is(err, bus.ErrLapsed) {
			continue
		}
		if err != nil {
			t.Fatalf("recv: %v", err)
		}
		return b
	}
}

func everyoneHearsInOrder(t *testing.T, p bus.Publisher, s bus.Subscriber) {
	subs := []bus.Subscription{subscribe(t, s), subscribe(t, s), subscribe(t, s)}
	join(t, p, subs...)
	const n = 50 // fits in Limits
	for i := uint64(2); i < 2+n; i++ {
		publish(t, p, Batch(i))
	}
	for _, sub := range subs {
		for i := uint64(2); i < 2+n; i++ {
			if b := mustRecv(t, sub); b.At.Index != i {
				t.Fatalf("index %d, want %d", b.At.Index, i)
			}
		}
	}
}

func batchesArriveUnchanged(t *testing.T, p bus.Publisher, s bus.Subscriber) {
	sub := subscribe(t, s)
	join(t, p, sub)
	want := Batch(2)
	want.CompactRevision, want.AuthRevision, want.AlarmVersion, want.RaftTerm = 3, 4, 5, 6
	want.Revisions[0].Events = append(want.Revisions[0].Events, &buspb.Event{Key: []byte("gone"), Delete: true, PrevKv: []byte("old")})
	for _, b := range []*buspb.Batch{want, heartbeat(2), bus.ToPull(Batch(3))} {
		publish(t, p, b)
		if got := mustRecv(t, sub); !proto.Equal(got, b) {
			t.Errorf("got %v, want %v", got, b)
		}
	}
}

func oldNewsIsNotRepeated(t *testing.T, p bus.Publisher, s bus.Subscriber) {
	first := subscribe(t, s)
	join(t, p, first)
	publish(t, p, Batch(2))
	mustRecv(t, first)
	late := subscribe(t, s)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	for {
		b, err := late.Recv(ctx)
		if errors.Is(err, bus.ErrLapsed) {
			continue
		}
		if err == nil && len(b.Revisions) == 0 {
			continue // a heartbeat is no news
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a late subscriber heard %v, %v", b, err)
		}
		return
	}
}

func slowReceiverLapses(t *testing.T, p bus.Publisher, s bus.Subscriber) {
	slow, quick := subscribe(t, s), subscribe(t, s)
	join(t, p, slow, quick)
	const n = 300 // does not fit in Limits
	for i := uint64(2); i < 2+n; i++ {
		publish(t, p, Batch(i)) // never waits for the slow one
		if b := mustRecv(t, quick); b.At.Index != i {
			t.Fatalf("the quick receiver got index %d, want %d", b.At.Index, i)
		}
	}
	publishUntil := uint64(2 + n)
	var last uint64
	lapsed := false
	for last != publishUntil {
		b, err := recv(t, slow)
		switch {
		case errors.Is(err, bus.ErrLapsed):
			lapsed = true
			publish(t, p, Batch(publishUntil))
		case err != nil:
			t.Fatal(err)
		case b.At.Index <= last:
			t.Fatalf("index %d after %d", b.At.Index, last)
		case b.At.Index > max(last, 1)+1 && !lapsed:
			t.Fatalf("index %d after %d without a lapse", b.At.Index, last)
		default:
			last = b.At.Index
		}
	}
	if !lapsed {
		t.Error("the slow receiver never lapsed")
	}
}

func largeBatchComesOrIsPulled(t *testing.T, p bus.Publisher, s bus.Subscriber) {
	sub := subscribe(t, s)
	join(t, p, sub)
	large := Batch(2)
	large.Revisions[0].Events[0].Kv = make([]byte, 3<<20)
	publish(t, p, large)
	got := mustRecv(t, sub)
	if !proto.Equal(got, large) && !proto.Equal(got, bus.ToPull(large)) {
		t.Errorf("%d bytes came as %d, pull %v", proto.Size(large), proto.Size(got), got.Pull)
	}
	publish(t, p, Batch(3))
	if b := mustRecv(t, sub); b.At.Index != 3 {
		t.Errorf("index %d after the large batch", b.At.Index)
	}
}

func recvEndsWithContextOrClose(t *testing.T, p bus.Publisher, s bus.Subscriber) {
	sub := subscribe(t, s)
	join(t, p, sub)
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() {
		for {
			if _, err := sub.Recv(ctx); err != nil && !errors.Is(err, bus.ErrLapsed) {
				result <- err
				return
			}
		}
	}()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("recv: %v, want Canceled", err)
	}
	go func() {
		for {
			if _, err := sub.Recv(context.Background()); err != nil && !errors.Is(err, bus.ErrLapsed) {
				result <- err
				return
			}
		}
	}()
	sub.Close()
	if err := <-result; !errors.Is(err, bus.ErrClosed) {
		t.Errorf("recv: %v, want ErrClosed", err)
	}
	sub.Close() // harmless
}

package bus_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/bus"
	"github.com/quartet-kv/quartet/services/bus/bustest"
	"github.com/quartet-kv/quartet/services/bus/memory"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// history is a store: it publishes what it applies, and can be followed within
// the part of its batches that it keeps.
type history struct {
	news *memory.Bus
	keep int

	mu struct {
		sync.Mutex
		changed  chan struct{}
		batches  []*buspb.Batch
		epoch    uint64
		index    uint64
		revision int64
		gone     bool // nobody can be asked
	}
}

func newHistory(keep int) *history {
	h := &history{news: memory.New(bus.QueueLimits{BatchesMax: 32}), keep: keep}
	h.mu.changed = make(chan struct{})
	h.mu.epoch = 1
	return h
}

// apply adds entries in batches that hold several of them, each of which makes
// 0, 1 or 2 revisions, and publishes.
func (h *history) apply(entries int, rnd *rand.Rand) {
	h.mu.Lock()
	b := &buspb.Batch{ClusterId: 1, PrevIndex: h.mu.index, PrevRevision: h.mu.revision, RaftTerm: 1}
	for range entries {
		h.mu.index++
		for range rnd.IntN(3) {
			h.mu.revision++
			b.Revisions = append(b.Revisions, &buspb.Revision{Revision: h.mu.revision})
		}
	}
	b.At, b.Revision = &logpb.LogID{Epoch: h.mu.epoch, Index: h.mu.index, Term: 1}, h.mu.revision
	h.mu.batches = append(h.mu.batches, b)
	close(h.mu.changed)
	h.mu.changed = make(chan struct{})
	h.mu.Unlock()
	_ = h.news.Publish(context.Background(), b)
}

func (h *history) heartbeat() *buspb.Batch {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.heartbeatLocked()
}

func (h *history) heartbeatLocked() *buspb.Batch {
	return &buspb.Batch{
		ClusterId: 1, At: &logpb.LogID{Epoch: h.mu.epoch, Index: h.mu.index, Term: 1}, PrevIndex: h.mu.index,
		PrevRevision: h.mu.revision, Revision: h.mu.revision, RaftTerm: 1,
	}
}

// pull implements bus.Pull.
func (h *history) pull(ctx context.Context, after logid.ID) (bus.Feed, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.gone {
		return nil, errs.ErrNotReady
	}
	f := &feed{ctx: ctx, history: h, next: len(h.mu.batches)}
	if after.IsZero() {
		f.first = h.heartbeatLocked()
		return f, nil
	}
	if uint64(after.Epoch) != h.mu.epoch {
		return nil, errs.ErrFollowBehind
	}
	for f.next > 0 && h.mu.batches[f.next-1].At.Index > uint64(after.Index) {
		f.next--
	}
	if len(h.mu.batches)-f.next > h.keep {
		return nil, errs.ErrFollowBehind
	}
	return f, nil
}

type feed struct {
	ctx     context.Context
	history *history
	first   *buspb.Batch
	next    int
}

func (f *feed) Recv() (*buspb.Batch, error) {
	if b := f.first; b != nil {
		f.first = nil
		return b, nil
	}
	for {
		f.history.mu.Lock()
		gone, changed := f.history.mu.gone, f.history.mu.changed
		var b *buspb.Batch
		if f.next < len(f.history.mu.batches) {
			b = f.history.mu.batches[f.next]
			f.next++
		}
		f.history.mu.Unlock()
		if gone {
			return nil, errs.ErrNotReady
		}
		if b != nil {
			return b, nil
		}
		select {
		case <-changed:
		case <-f.ctx.Done():
			return nil, f.ctx.Err()
		}
	}
}

// checker is a Sink that demands what a Reader promises.
type checker struct {
	mu struct {
		sync.Mutex
		at        bus.Position
		revisions int64 // accepted
		skipped   int64 // by resets
		resets    int
		failure   error
		changed   chan struct{}
	}
}

func newChecker() *checker {
	c := &checker{}
	c.mu.changed = make(chan struct{})
	return c
}

func (c *checker) Accept(_ context.Context, b *buspb.Batch) error {
	return c.step(func() error {
		switch {
		case b.Pull:
			return errors.New("a batch to be pulled was accepted")
		case b.PrevIndex != uint64(c.mu.at.At.Index) || b.PrevRevision != c.mu.at.Revision:
			return fmt.Errorf("batch from %d (revision %d) at %v (revision %d)", b.PrevIndex, b.PrevRevision, c.mu.at.At, c.mu.at.Revision)
		}
		for i, r := range b.Revisions {
			if want := c.mu.at.Revision + int64(i) + 1; r.Revision != want {
				return fmt.Errorf("revision %d, want %d", r.Revision, want)
			}
		}
		if got := c.mu.at.Revision + int64(len(b.Revisions)); got != b.Revision {
			return fmt.Errorf("batch ends at revision %d, its revisions at %d", b.Revision, got)
		}
		c.mu.revisions += int64(len(b.Revisions))
		c.mu.at = bus.Position{At: logid.FromProto(b.At), Revision: b.Revision}
		return nil
	})
}

func (c *checker) Reset(_ context.Context, p bus.Position) error {
	return c.step(func() error {
		if p.At.Epoch == c.mu.at.At.Epoch && p.At.Index <= c.mu.at.At.Index && c.mu.resets > 0 {
			return fmt.Errorf("reset from %v back to %v", c.mu.at.At, p.At)
		}
		c.mu.resets++
		c.mu.skipped += p.Revision - c.mu.at.Revision
		c.mu.at = bus.Position{At: p.At, Revision: p.Revision}
		return nil
	})
}

func (c *checker) step(f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.failure = f()
	close(c.mu.changed)
	c.mu.changed = make(chan struct{})
	return c.mu.failure
}

// reach waits until the Sink stands where h does.
func (c *checker) reach(t *testing.T, h *history) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		h.mu.Lock()
		epoch, index, revision := h.mu.epoch, h.mu.index, h.mu.revision
		h.mu.Unlock()
		c.mu.Lock()
		at, failure, changed := c.mu.at, c.mu.failure, c.mu.changed
		ok := c.mu.revisions+c.mu.skipped == revision
		c.mu.Unlock()
		if failure != nil {
			t.Fatal(failure)
		}
		if uint64(at.At.Epoch) == epoch && uint64(at.At.Index) == index {
			if !ok || at.Revision != revision {
				t.Fatalf("at %v with revision %d of %d", at.At, at.Revision, revision)
			}
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("at %v, never at index %d", at.At, index)
		}
	}
}

func (c *checker) resets() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.resets
}

func read(t *testing.T, h *history, s bus.Subscriber, sink bus.Sink) *bus.Reader {
	r := bus.NewReader(bus.ReaderConfig{
		Subscriber: s, Pull: h.pull,
		SilenceMax: 20 * time.Millisecond, RetryMin: time.Millisecond, RetryMax: 5 * time.Millisecond, AheadBatchesMax: 8,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, sink) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

// TestFaultsOfTheBusAreHarmless publishes through a bus that loses, repeats,
// reorders, lapses, ends and falls silent. Nothing is missed or repeated, and as
// the store keeps everything, nothing is reset but the start.
func TestFaultsOfTheBusAreHarmless(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 99))
			h := newHistory(1 << 30)
			fault := &bustest.Fault{Inner: h.news, Seed: seed, Percent: int(seed) * 8}
			sink := newChecker()
			r := read(t, h, fault, sink)
			for i := range 1500 {
				h.apply(1+rnd.IntN(3), rnd)
				switch rnd.IntN(60) {
				case 0:
					_ = h.news.Publish(context.Background(), h.heartbeat())
				case 1:
					sink.reach(t, h)
				case 2:
					fault.Mute(i%2 == 0)
				case 3:
					h.mu.Lock()
					index := h.mu.index
					h.mu.Unlock()
					r.Want(logid.Index(index))
				case 4: // the bus dies, at whatever moment of a pull
					fault.Mute(true)
					h.apply(1, rnd)
					sink.reach(t, h)
					fault.Mute(false)
				}
			}
			sink.reach(t, h)
			if n := sink.resets(); n != 1 {
				t.Errorf("%d resets, want that of the start", n)
			}
		})
	}
}

// TestForgetfulStoresMeanResets has stores that keep few batches: what is then
// missed is said.
func TestForgetfulStoresMeanResets(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 98))
			h := newHistory(4)
			fault := &bustest.Fault{Inner: h.news, Seed: seed, Percent: 20}
			sink := newChecker()
			read(t, h, fault, sink)
			sink.reach(t, h)
			for i := range 1000 {
				h.apply(1+rnd.IntN(3), rnd)
				if i%100 == 0 {
					sink.reach(t, h)
				}
			}
			fault.Mute(true)
			sink.reach(t, h)
		})
	}
}

func TestStoppedBusIsReplacedByAStore(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	h := newHistory(1 << 30)
	fault := &bustest.Fault{Inner: h.news}
	sink := newChecker()
	read(t, h, fault, sink)
	h.apply(1, rnd)
	sink.reach(t, h)
	fault.Mute(true)
	for range 100 {
		h.apply(1, rnd)
		sink.reach(t, h)
	}
	fault.Mute(false)
	h.apply(1, rnd)
	sink.reach(t, h)
}

func TestNewEpochIsAReset(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	h := newHistory(1 << 30)
	sink := newChecker()
	read(t, h, h.news, sink)
	for range 10 {
		h.apply(1, rnd)
	}
	sink.reach(t, h)
	before := sink.resets()
	h.mu.Lock()
	h.mu.epoch, h.mu.index = 2, 3 // restored to an earlier index
	h.mu.batches = nil
	h.mu.Unlock()
	h.apply(1, rnd)
	sink.reach(t, h)
	if sink.resets() != before+1 {
		t.Errorf("%d resets, want one more than %d", sink.resets(), before)
	}
}

func TestOtherClustersNewsIsRefused(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	h := newHistory(1 << 30)
	sink := newChecker()
	read(t, h, h.news, sink)
	h.apply(1, rnd)
	sink.reach(t, h)
	foreign := bustest.Batch(50)
	foreign.ClusterId, foreign.At.Epoch = 2, 9
	_ = h.news.Publish(context.Background(), foreign)
	h.apply(1, rnd)
	sink.reach(t, h)
	if sink.resets() != 1 {
		t.Errorf("%d resets", sink.resets())
	}
}

func TestLostStoresAreWaitedFor(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	h := newHistory(1 << 30)
	fault := &bustest.Fault{Inner: h.news}
	sink := newChecker()
	read(t, h, fault, sink)
	h.apply(1, rnd)
	sink.reach(t, h)
	setGone := func(gone bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.mu.gone = gone
		close(h.mu.changed)
		h.mu.changed = make(chan struct{})
	}
	setGone(true)
	fault.Mute(true)
	h.apply(1, rnd)
	setGone(false)
	sink.reach(t, h)
}

// TestBusThatDiesDuringAPullIsNoticed has silence pass while a store is followed
// anyway, then the bus met once more, and nothing from it ever again.
func TestBusThatDiesDuringAPullIsNoticed(t *testing.T) {
	news := memory.New(bus.QueueLimits{})
	feeds := make(chan chan *buspb.Batch)
	r := bus.NewReader(bus.ReaderConfig{
		Subscriber: news, SilenceMax: 20 * time.Millisecond, RetryMin: time.Millisecond,
		Start: bus.Position{At: logid.ID{Epoch: 1, Index: 1, Term: 1}, Revision: 1},
		Pull: func(ctx context.Context, _ logid.ID) (bus.Feed, error) {
			f := make(chan *buspb.Batch)
			select {
			case feeds <- f:
				return scripted{ctx, f}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.Run(ctx, ignoring{}) }()
	defer func() { cancel(); <-done }()
	feed := <-feeds // asked because of silence, which is not noticed a second time
	_ = news.Publish(ctx, bustest.Batch(3))
	<-time.After(40 * time.Millisecond) // the silence itself; the feed gives up at 80 ms
	for given := false; !given; {
		select {
		case feed <- bustest.Batch(2): // 3 is at hand: the bus is met
			given = true
		case feed = <-feeds:
		}
	}
	select {
	case <-feeds:
	case <-time.After(20 * time.Second):
		t.Error("the bus is silent and no store is asked")
	}
}

type scripted struct {
	ctx  context.Context
	feed chan *buspb.Batch
}

func (s scripted) Recv() (*buspb.Batch, error) {
	select {
	case b := <-s.feed:
		return b, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

type ignoring struct{}

func (ignoring) Accept(context.Context, *buspb.Batch) error { return nil }
func (ignoring) Reset(context.Context, bus.Position) error  { return nil }

func TestSinksErrorEndsTheReader(t *testing.T) {
	h := newHistory(1 << 30)
	r := bus.NewReader(bus.ReaderConfig{Subscriber: h.news, Pull: h.pull})
	want := errors.New("full")
	if err := r.Run(context.Background(), refusing{want}); !errors.Is(err, want) {
		t.Errorf("Run: %v", err)
	}
}

type refusing struct{ err error }

func (r refusing) Accept(context.Context, *buspb.Batch) error { return r.err }
func (r refusing) Reset(context.Context, bus.Position) error  { return r.err }

func BenchmarkReader(b *testing.B) {
	h := newHistory(1 << 30)
	h.news = memory.New(bus.QueueLimits{BatchesMax: 1 << 20, BytesMax: 1 << 30})
	done := make(chan struct{})
	sink := &counter{last: uint64(b.N), done: done}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := bus.NewReader(bus.ReaderConfig{Subscriber: h.news, Pull: h.pull})
	b.ReportAllocs()
	go func() { _ = r.Run(ctx, sink) }()
	rnd := rand.New(rand.NewPCG(1, 1))
	for range b.N {
		h.apply(1, rnd)
	}
	<-done
}

type counter struct {
	last uint64
	done chan struct{}
}

func (c *counter) Accept(_ context.Context, b *buspb.Batch) error { return c.reach(b.At.Index) }
func (c *counter) Reset(_ context.Context, p bus.Position) error  { return c.reach(uint64(p.At.Index)) }

func (c *counter) reach(index uint64) error {
	if index >= c.last && c.done != nil {
		close(c.done)
		c.done = nil
	}
	return nil
}

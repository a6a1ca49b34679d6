package bustest

import (
	"context"
	"math/rand/v2"
	"sync"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/services/bus"
)

// Fault is a bus.Subscriber that does to another one's batches everything that
// a bus may do: lose, repeat, reorder, replay, lapse, end, and say nothing.
type Fault struct {
	Inner bus.Subscriber
	// Seed makes the faults; each subscription has its own.
	Seed uint64
	// Percent of batches that something happens to.
	Percent int

	mu struct {
		sync.Mutex
		subscriptions uint64
		mute          bool
	}
}

// Mute makes the bus say nothing at all, or speak again.
func (f *Fault) Mute(mute bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.mute = mute
}

func (f *Fault) muted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.mute
}

// Subscribe implements bus.Subscriber.
func (f *Fault) Subscribe(ctx context.Context) (bus.Subscription, error) {
	f.mu.Lock()
	f.mu.subscriptions++
	seed := f.mu.subscriptions
	f.mu.Unlock()
	inner, err := f.Inner.Subscribe(ctx)
	if err != nil {
		return nil, err
	}
	return &faulty{fault: f, inner: inner, rand: rand.New(rand.NewPCG(f.Seed, seed))}, nil
}

type faulty struct {
	fault *Fault
	inner bus.Subscription
	rand  *rand.Rand
	// next are handed out before anything else; past may come again.
	next, past []*buspb.Batch
}

func (f *faulty) Close() { f.inner.Close() }

func (f *faulty) Recv(ctx context.Context) (*buspb.Batch, error) {
	for {
		if len(f.next) > 0 {
			b := f.next[0]
			f.next = f.next[1:]
			return b, nil
		}
		b, err := f.inner.Recv(ctx)
		if err != nil {
			return nil, err
		}
		if f.fault.muted() {
			continue
		}
		f.past = append(f.past[max(0, len(f.past)-20):], b)
		if f.rand.IntN(100) >= f.fault.Percent {
			return b, nil
		}
		switch f.rand.IntN(7) {
		case 0: // lost
		case 1: // lost, and said so
			return nil, bus.ErrLapsed
		case 2: // twice
			f.next = append(f.next, b, b)
		case 3: // after the next one
			if later, err := f.inner.Recv(ctx); err == nil {
				f.next = append(f.next, later, b)
			}
		case 4: // old news again
			f.next = append(f.next, f.past...)
		case 5: // too large
			return bus.ToPull(b), nil
		case 6: // the subscription ends
			return nil, bus.ErrClosed
		}
	}
}

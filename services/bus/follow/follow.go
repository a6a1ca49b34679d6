// Package follow is the bus without a bus: it listens to one store at a time,
// over the stream that every store offers. Fit for a few receivers; each costs
// the store a stream.
package follow

import (
	"context"
	"sync"
	"time"

	"github.com/quartet-kv/quartet/services/bus"
	"github.com/quartet-kv/quartet/services/logid"
)

// Pauses between a feed that ended and the next.
const (
	retryMin = 20 * time.Millisecond
	retryMax = 500 * time.Millisecond
)

// Subscriber is a bus.Subscriber whose subscriptions follow stores from now on.
type Subscriber struct {
	pull   bus.Pull
	limits bus.QueueLimits
}

// New returns a Subscriber that listens at the store that pull chooses.
func New(pull bus.Pull, limits bus.QueueLimits) *Subscriber {
	return &Subscriber{pull: pull, limits: limits}
}

// Subscribe implements bus.Subscriber. The subscription lives until Close,
// whatever becomes of ctx.
func (s *Subscriber) Subscribe(ctx context.Context) (bus.Subscription, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	q := bus.NewQueue(s.limits, func() {
		cancel()
		wg.Wait()
	})
	wg.Go(func() { s.listen(ctx, q) })
	return q, nil
}

// listen follows one store after another; a lapse lies between two of them.
func (s *Subscriber) listen(ctx context.Context, q *bus.Queue) {
	pause := retryMin
	for ctx.Err() == nil {
		if feed, err := s.pull(ctx, logid.ID{}); err == nil {
			for {
				b, err := feed.Recv()
				if err != nil {
					break
				}
				q.Offer(b, bus.SizeOf(b))
				pause = retryMin
			}
			q.Lapse()
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, retryMax)
	}
}

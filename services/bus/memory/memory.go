// Package memory is the bus inside one process: a batch is handed to each
// subscriber's queue as it is, without a copy.
package memory

import (
	"context"
	"sync"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/services/bus"
)

// Bus is a bus.Publisher and a bus.Subscriber. Its publishers take turns, so
// that all subscribers see one order.
type Bus struct {
	limits bus.QueueLimits

	mu struct {
		sync.Mutex
		queues map[*bus.Queue]struct{}
	}
}

// New returns a bus without subscribers, whose subscribers' queues have the
// given limits.
func New(limits bus.QueueLimits) *Bus {
	b := &Bus{limits: limits}
	b.mu.queues = make(map[*bus.Queue]struct{})
	return b
}

// Publish implements bus.Publisher. It never fails.
func (b *Bus) Publish(_ context.Context, batch *buspb.Batch) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.mu.queues) == 0 {
		return nil
	}
	size := bus.SizeOf(batch)
	for q := range b.mu.queues {
		q.Offer(batch, size)
	}
	return nil
}

// Subscribe implements bus.Subscriber.
func (b *Bus) Subscribe(context.Context) (bus.Subscription, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var q *bus.Queue
	q = bus.NewQueue(b.limits, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.mu.queues, q)
	})
	b.mu.queues[q] = struct{}{}
	return q, nil
}

package bus

import (
	"context"
	"sync"

	"github.com/quartet-kv/quartet/proto/buspb"
)

// QueueLimits bound a Queue. Zero limits take their defaults.
type QueueLimits struct {
	// BatchesMax and BytesMax bound what waits to be received. Defaults 8192
	// and 32 MiB; a single batch may exceed the bytes.
	BatchesMax int
	BytesMax   int
}

// Queue is the Subscription that every bus here hands out: the bus Offers, the
// receiver Recvs, and neither waits for the other.
type Queue struct {
	limits QueueLimits
	filled chan struct{}
	closed chan struct{}
	onEnd  func()

	mu struct {
		sync.Mutex
		items  []queued
		bytes  int
		lapsed bool // something was missed after the last item
		closed bool
	}
}

type queued struct {
	batch  *buspb.Batch
	bytes  int
	lapsed bool // something was missed before it
}

// NewQueue returns an empty Queue. OnClose, which may be nil, is called once by
// the first Close.
func NewQueue(limits QueueLimits, onClose func()) *Queue {
	if limits.BatchesMax <= 0 {
		limits.BatchesMax = 8192
	}
	if limits.BytesMax <= 0 {
		limits.BytesMax = 32 << 20
	}
	return &Queue{limits: limits, filled: make(chan struct{}, 1), closed: make(chan struct{}), onEnd: onClose}
}

// Offer queues a batch of so many bytes, or drops it when the queue is full. It
// never blocks.
func (q *Queue) Offer(b *buspb.Batch, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.closed {
		return
	}
	if n := len(q.mu.items); n >= q.limits.BatchesMax || n > 0 && q.mu.bytes+bytes > q.limits.BytesMax {
		q.mu.lapsed = true
		return
	}
	q.mu.items = append(q.mu.items, queued{b, bytes, q.mu.lapsed})
	q.mu.bytes += bytes
	q.mu.lapsed = false
	q.signal()
}

// Lapse says that batches may have been missed here.
func (q *Queue) Lapse() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.lapsed = true
	q.signal()
}

// Recv implements Subscription.
func (q *Queue) Recv(ctx context.Context) (*buspb.Batch, error) {
	for {
		if b, err := q.take(); b != nil || err != nil {
			return b, err
		}
		select {
		case <-q.filled:
		case <-q.closed:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Close implements Subscription.
func (q *Queue) Close() {
	q.mu.Lock()
	first := !q.mu.closed
	q.mu.closed = true
	q.mu.items, q.mu.bytes = nil, 0
	q.mu.Unlock()
	if first {
		close(q.closed)
		if q.onEnd != nil {
			q.onEnd()
		}
	}
}

func (q *Queue) take() (*buspb.Batch, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.closed {
		return nil, ErrClosed
	}
	if len(q.mu.items) == 0 {
		if q.mu.lapsed {
			q.mu.lapsed = false
			return nil, ErrLapsed
		}
		return nil, nil
	}
	head := &q.mu.items[0]
	if head.lapsed {
		head.lapsed = false
		return nil, ErrLapsed
	}
	b := head.batch
	q.mu.bytes -= head.bytes
	*head = queued{}
	q.mu.items = q.mu.items[1:]
	return b, nil
}

func (q *Queue) signal() {
	select {
	case q.filled <- struct{}{}:
	default:
	}
}

// SizeOf is roughly what a batch takes in memory and on the wire.
func SizeOf(b *buspb.Batch) int {
	size := 64
	for _, r := range b.Revisions {
		size += 16
		for _, e := range r.Events {
			size += len(e.Key) + len(e.Kv) + len(e.PrevKv) + 16
		}
	}
	return size
}

package transport

import (
	"context"
	"sync"

	"go.etcd.io/raft/v3/raftpb"
)

// Limits of an outbox and of a batch.
const (
	outboxMessagesMax = 4096
	outboxBytesMax    = 64 << 20
	batchMessagesMax  = 512
	// batchBytesMax bounds a batch softly: the message that crosses it still goes.
	batchBytesMax = 1 << 20
	// messageOverheadBytes is what a message costs beside its entries.
	messageOverheadBytes = 64
)

// outbox is a bounded queue with one taker.
type outbox struct {
	wake chan struct{} // one token: the queue is not empty

	mu struct {
		sync.Mutex
		open  bool // a stream takes from it
		queue []*raftpb.Message
		bytes int
	}
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

// put queues a message, or tells that it was dropped.
func (o *outbox) put(m *raftpb.Message) bool {
	size := messageBytes(m)
	o.mu.Lock()
	if !o.mu.open || len(o.mu.queue) >= outboxMessagesMax || o.mu.bytes+size > outboxBytesMax && o.mu.bytes > 0 {
		o.mu.Unlock()
		return false
	}
	o.mu.queue = append(o.mu.queue, m)
	o.mu.bytes += size
	first := len(o.mu.queue) == 1
	o.mu.Unlock()
	if first {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// take waits for messages and appends a batch of them to buf.
func (o *outbox) take(ctx context.Context, buf []*raftpb.Message) ([]*raftpb.Message, error) {
	for {
		o.mu.Lock()
		n, size := 0, 0
		for n < len(o.mu.queue) && n < batchMessagesMax && size < batchBytesMax {
			size += messageBytes(o.mu.queue[n])
			n++
		}
		if n > 0 {
			buf = append(buf, o.mu.queue[:n]...)
			rest := copy(o.mu.queue, o.mu.queue[n:])
			clear(o.mu.queue[rest:])
			o.mu.queue = o.mu.queue[:rest]
			o.mu.bytes -= size
			o.mu.Unlock()
			return buf, nil
		}
		o.mu.Unlock()
		select {
		case <-o.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// setOpen starts an empty queue, or drops what is queued.
func (o *outbox) setOpen(open bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.open = open
	o.mu.queue, o.mu.bytes = nil, 0
}

func messageBytes(m *raftpb.Message) int {
	size := messageOverheadBytes
	for _, e := range m.Entries {
		size += len(e.Data) + messageOverheadBytes
	}
	return size
}

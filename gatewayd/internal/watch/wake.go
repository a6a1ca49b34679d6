package watch

import (
	"context"

	"google.golang.org/grpc/peer"
)

// wakeEntriesMax and wakeBytesMax bound what dispatch gives out before it wakes
// the senders.
const (
	wakeEntriesMax = 32
	wakeBytesMax   = 64 << 10
)

// connection is the streams of one client connection. Their senders are woken
// one after the other: what they write then leaves in one piece, where in any
// other order each response would cost a system call of its own.
type connection struct {
	name    string
	streams int
	ready   []*stream // have something to send and were not woken
}

// connectionOf finds the connection of a stream, or makes it.
func (h *Hub) connectionOf(ctx context.Context) *connection {
	name := ""
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		name = p.Addr.String()
	}
	c, ok := h.connections[name]
	if !ok {
		c = &connection{name: name}
		h.connections[name] = c
	}
	c.streams++
	return c
}

func (h *Hub) leaveConnection(c *connection) {
	if c.streams--; c.streams == 0 {
		delete(h.connections, c.name)
	}
}

// wakeLater notes that a stream's sender may be asleep on a filled outbox.
func (h *Hub) wakeLater(s *stream) {
	if len(s.connection.ready) == 0 {
		h.toWake = append(h.toWake, s.connection)
	}
	s.connection.ready = append(s.connection.ready, s)
}

// wake wakes the senders of what was given out since the last time.
func (h *Hub) wake() {
	for i, c := range h.toWake {
		for j, s := range c.ready {
			s.out.wake()
			c.ready[j] = nil
		}
		c.ready = c.ready[:0]
		h.toWake[i] = nil
	}
	h.toWake = h.toWake[:0]
}

// offer gives a response to a stream if its outbox has room.
func (h *Hub) offer(s *stream, r response) bool {
	fits, wake := s.out.offer(r)
	if wake {
		h.wakeLater(s)
	}
	return fits
}

// put gives a response to a stream whatever waits there.
func (h *Hub) put(s *stream, r response) {
	if s.out.put(r) {
		h.wakeLater(s)
	}
}

// tryPut gives a response to a stream unless its outbox is full.
func (h *Hub) tryPut(s *stream, r response) {
	if s.out.tryPut(r) {
		h.wakeLater(s)
	}
}

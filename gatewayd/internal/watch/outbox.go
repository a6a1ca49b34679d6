package watch

import "sync"

// outbox is what waits for one client's stream: responses in order, bounded in
// bytes. The hub puts in and never waits; the stream's goroutine takes out.
type outbox struct {
	bytesMax int

	mu struct {
		sync.Mutex
		filled sync.Cond // the sender waits for responses
		room   sync.Cond // the receiver waits for room

		waiting []response
		bytes   int // waiting, or taken and not yet sent
		events  int // the same; also those put in after the end
		// refused is the size of a response that did not fit; the hub is to be
		// told when it would. 0: none was refused since.
		refused int
		ended   bool
		err     error
	}
}

func newOutbox(bytesMax int) *outbox {
	o := &outbox{bytesMax: bytesMax}
	o.mu.filled.L = &o.mu
	o.mu.room.L = &o.mu
	return o
}

// offer puts a response in if it fits, or if nothing else waits. If not, sent
// will say so once when there is room again. Wake, here and below, asks the
// caller to call wake, since the sender may be asleep.
func (o *outbox) offer(r response) (fits, wake bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.bytes > 0 && o.mu.bytes+r.bytes > o.bytesMax {
		o.mu.refused = r.bytes
		return false, false
	}
	return true, o.putLocked(r)
}

// tryPut puts a response in unless the outbox is full; nothing follows if it is.
func (o *outbox) tryPut(r response) (wake bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.bytes < o.bytesMax && o.putLocked(r)
}

// put puts a response in whatever waits. It is for answers to the client's own
// requests, which stop being taken while the outbox is full (waitRoom).
func (o *outbox) put(r response) (wake bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.putLocked(r)
}

func (o *outbox) putLocked(r response) (wake bool) {
	o.mu.events += r.events
	if o.mu.ended {
		return false
	}
	o.mu.waiting = append(o.mu.waiting, r)
	o.mu.bytes += r.bytes
	return len(o.mu.waiting) == 1
}

// wake lets take return what was put in.
func (o *outbox) wake() { o.mu.filled.Signal() }

// take waits for responses and returns all that wait, reusing the memory of
// spent; nil and the reason when the stream has ended.
func (o *outbox) take(spent []response) ([]response, error) {
	clear(spent)
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.mu.waiting) == 0 && !o.mu.ended {
		o.mu.filled.Wait()
	}
	if o.mu.ended {
		return nil, o.mu.err
	}
	taken := o.mu.waiting
	o.mu.waiting = spent[:0]
	return taken, nil
}

// sent says that a response has left. Drained is true once after a refusal, when
// the refused response would fit and half of the room is free; ended tells that
// the stream has ended, so that what else was taken need not be sent.
func (o *outbox) sent(r response) (drained, ended bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	full := o.mu.bytes >= o.bytesMax
	o.mu.bytes -= r.bytes
	o.mu.events -= r.events
	if full && o.mu.bytes < o.bytesMax {
		o.mu.room.Broadcast()
	}
	if o.mu.refused == 0 || o.mu.bytes > max(0, min(o.bytesMax/2, o.bytesMax-o.mu.refused)) {
		return false, o.mu.ended
	}
	o.mu.refused = 0
	return true, o.mu.ended
}

// waitRoom waits until the outbox is not full; false when the stream has ended.
func (o *outbox) waitRoom() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.mu.bytes >= o.bytesMax && !o.mu.ended {
		o.mu.room.Wait()
	}
	return !o.mu.ended
}

// end makes take return err, once what it returned last has been sent. Only the
// first end counts.
func (o *outbox) end(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.ended {
		return
	}
	o.mu.ended, o.mu.err = true, err
	o.mu.waiting = nil
	o.mu.filled.Broadcast()
	o.mu.room.Broadcast()
}

// leftover is the number of events that were put in and never sent.
func (o *outbox) leftover() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.events
}

package outcome

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quartet-kv/quartet/services/logid"
)

// Limits of a Hub.
const (
	// BytesMaxDefault bounds what all kept outcomes take.
	BytesMaxDefault = 64 << 20
	// closedMax bounds the closed sessions that are remembered.
	closedMax = 64
	// refusedMax bounds the refusals that wait for one stream; more are dropped,
	// since one is enough to make the proposer start over.
	refusedMax = 1024
	// streamsMax bounds the streams of one session.
	streamsMax = 16
	// batchOutcomesMax and batchBytesMax bound one message; a single outcome may
	// exceed the bytes.
	batchOutcomesMax = 4096
	batchBytesMax    = 1 << 20
	// outcomeOverheadBytes is what an outcome costs beside its body.
	outcomeOverheadBytes = 128
)

// Metrics of a Hub.
type Metrics struct {
	Bytes   prometheus.Gauge
	Streams prometheus.Gauge
	Lost    prometheus.Counter // outcomes asked for and not there
}

// Hub keeps the outcomes of all sessions.
type Hub struct {
	bytesMax int
	metrics  Metrics

	mu struct {
		sync.Mutex
		sessions map[uint64]*queue
		nonces   map[string]uint64
		closed   []uint64 // the oldest first
		bytes    int
		streams  int
		term     logid.Term
		opened   chan struct{} // closed and replaced when a session opens
		stopped  bool
	}
}

// queue is what is kept of one session. Items end at last.
type queue struct {
	id      uint64
	nonce   string
	last    uint64
	items   []Outcome // items[head:] are kept
	head    int
	bytes   int
	closed  bool
	streams map[*stream]struct{}
}

// NewHub returns a Hub that knows the sessions of a store that starts; what was
// decided before is lost here. BytesMax 0 is the default.
func NewHub(bytesMax int, open []Effect, m Metrics) *Hub {
	if bytesMax <= 0 {
		bytesMax = BytesMaxDefault
	}
	h := &Hub{bytesMax: bytesMax, metrics: m}
	h.mu.sessions = make(map[uint64]*queue)
	h.mu.nonces = make(map[string]uint64)
	h.mu.opened = make(chan struct{})
	h.Apply(open, 0)
	return h
}

// Apply adds what a batch of entries did, in order, and the highest raft term.
// Called by the apply loop.
func (h *Hub) Apply(effects []Effect, term logid.Term) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.term = max(h.mu.term, term)
	var q *queue
	for i := range effects {
		e := &effects[i]
		if q == nil || q.id != e.Session {
			q.wake()
			q = h.mu.sessions[e.Session]
		}
		switch e.Kind {
		case Opened:
			q = h.openLocked(e)
		case Closed:
			h.closeLocked(q)
		case Acked:
			h.forgetLocked(q, e.Outcome.Seq)
		case Decided:
			q.last = e.Outcome.Seq
			q.items = append(q.items, e.Outcome)
			h.addBytesLocked(q, e.Outcome.bytes())
		case Refused:
			q.refuse(e.Outcome)
		}
	}
	q.wake()
	h.trimLocked()
	h.metrics.Bytes.Set(float64(h.mu.bytes))
}

func (h *Hub) openLocked(e *Effect) *queue {
	q := &queue{id: e.Session, nonce: e.Nonce, last: e.Last, streams: make(map[*stream]struct{})}
	h.mu.sessions[q.id] = q
	h.mu.nonces[q.nonce] = q.id
	close(h.mu.opened)
	h.mu.opened = make(chan struct{})
	return q
}

// closeLocked keeps the session for a while, for those who have not heard its
// last outcomes.
func (h *Hub) closeLocked(q *queue) {
	if q == nil {
		return
	}
	q.closed = true
	delete(h.mu.nonces, q.nonce)
	h.mu.closed = append(h.mu.closed, q.id)
	if len(h.mu.closed) <= closedMax {
		return
	}
	oldest := h.mu.sessions[h.mu.closed[0]]
	h.mu.closed = h.mu.closed[1:]
	h.addBytesLocked(oldest, -oldest.bytes)
	delete(h.mu.sessions, oldest.id)
}

// forgetLocked drops outcomes up to seq.
func (h *Hub) forgetLocked(q *queue, seq uint64) {
	for q != nil && q.head < len(q.items) && q.items[q.head].Seq <= seq {
		h.popLocked(q)
	}
}

func (h *Hub) popLocked(q *queue) {
	h.addBytesLocked(q, -q.items[q.head].bytes())
	q.items[q.head] = Outcome{}
	q.head++
	// Moving what is left when half is gone moves each outcome once on average.
	if q.head > 64 && q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
}

// trimLocked takes the oldest outcomes of the largest session until the bound
// on bytes holds.
func (h *Hub) trimLocked() {
	for h.mu.bytes > h.bytesMax {
		var largest *queue
		for _, q := range h.mu.sessions {
			if largest == nil || q.bytes > largest.bytes {
				largest = q
			}
		}
		if largest.head == len(largest.items) {
			return
		}
		for h.mu.bytes > h.bytesMax && largest.head < len(largest.items) && largest.bytes > h.bytesMax/2/len(h.mu.sessions) {
			h.popLocked(largest)
		}
	}
}

func (h *Hub) addBytesLocked(q *queue, n int) {
	q.bytes += n
	h.mu.bytes += n
}

// first is the lowest number whose outcome is kept.
func (q *queue) first() uint64 { return q.last + 1 - uint64(len(q.items)-q.head) }

// wake leaves a token with every stream.
func (q *queue) wake() {
	if q == nil {
		return
	}
	for s := range q.streams {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (q *queue) refuse(o Outcome) {
	if q == nil {
		return
	}
	for s := range q.streams {
		if len(s.refused) < refusedMax {
			s.refused = append(s.refused, o)
		}
	}
}

func (o *Outcome) bytes() int {
	n := outcomeOverheadBytes + len(o.Body) + len(o.Error)
	if o.Lazy != nil {
		n += o.Lazy.Bytes()
	}
	return n
}

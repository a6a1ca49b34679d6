package outcome

import (
	"context"

	"google.golang.org/grpc"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
)

// stream is one reader of one session's outcomes.
type stream struct {
	wake    chan struct{} // one token: there is something to look at
	cursor  uint64        // the next number to send; the stream's own
	refused []Outcome     // guarded by the hub
}

// Applied waits until the store has applied an index (errs.ErrNotReady when ctx
// ends before).
type Applied func(ctx context.Context, index uint64) error

// Serve runs one Outcomes call until its context ends. It waits for a session
// that this store has not opened yet; one that is not open, or no more, ends
// with errs.ErrUnknownSession after what is known of it was sent.
func (h *Hub) Serve(req *storepb.OutcomesRequest, g grpc.ServerStreamingServer[storepb.OutcomeBatch], applied Applied) error {
	ctx := g.Context()
	q, err := h.find(ctx, req, applied)
	if err != nil {
		return err
	}
	s := &stream{wake: make(chan struct{}, 1), cursor: req.AfterSeq + 1}
	if err := h.attach(q, s); err != nil {
		return err
	}
	defer h.detach(q, s)
	closed := h.isClosed(q)
	for first := true; ; first = false {
		batch, pending := h.next(q, s)
		if len(pending) == 0 && !first {
			if closed {
				return errs.ErrUnknownSession
			}
			select {
			case <-s.wake:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		h.build(ctx, batch, pending)
		if err := g.Send(batch); err != nil {
			return err
		}
	}
}

// find returns the session's queue.
func (h *Hub) find(ctx context.Context, req *storepb.OutcomesRequest, applied Applied) (*queue, error) {
	if req.Session != 0 {
		if err := applied(ctx, req.Session); err != nil {
			return nil, err
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if q := h.mu.sessions[req.Session]; q != nil {
			return q, nil
		}
		return nil, errs.ErrUnknownSession
	}
	for {
		h.mu.Lock()
		q, opened := h.mu.sessions[h.mu.nonces[string(req.Nonce)]], h.mu.opened
		h.mu.Unlock()
		if q != nil {
			return q, nil
		}
		select {
		case <-opened:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (h *Hub) attach(q *queue, s *stream) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(q.streams) >= streamsMax {
		return errs.ErrTooManyRequests
	}
	q.streams[s] = struct{}{}
	h.mu.streams++
	h.metrics.Streams.Set(float64(h.mu.streams))
	return nil
}

func (h *Hub) detach(q *queue, s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(q.streams, s)
	h.mu.streams--
	h.metrics.Streams.Set(float64(h.mu.streams))
}

func (h *Hub) isClosed(q *queue) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return q.closed
}

// next takes what the stream has not sent: lost numbers, kept outcomes, and
// refusals, within the limits of a message.
func (h *Hub) next(q *queue, s *stream) (*storepb.OutcomeBatch, []Outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	batch := &storepb.OutcomeBatch{Session: q.id, RaftTerm: uint64(h.mu.term), Last: q.last}
	var out []Outcome
	if first := q.first(); s.cursor < first {
		for ; s.cursor < first && len(out) < batchOutcomesMax; s.cursor++ {
			out = append(out, Outcome{Seq: s.cursor, Fate: storepb.Outcome_LOST})
		}
		h.metrics.Lost.Add(float64(len(out)))
		return batch, out
	}
	if s.cursor <= q.last {
		items := q.items[q.head+int(s.cursor-q.first()):]
		n, size := 0, 0
		for n < len(items) && n < batchOutcomesMax && (n == 0 || size < batchBytesMax) {
			size += items[n].bytes()
			n++
		}
		out = append(make([]Outcome, 0, n+len(s.refused)), items[:n]...)
		s.cursor += uint64(n)
	}
	if s.cursor > q.last {
		out = append(out, s.refused...)
		s.refused = nil
	}
	return batch, out
}

// build makes messages of outcomes, and the bodies that were left unbuilt.
func (h *Hub) build(ctx context.Context, batch *storepb.OutcomeBatch, outcomes []Outcome) {
	messages := make([]storepb.Outcome, len(outcomes))
	batch.Outcomes = make([]*storepb.Outcome, len(outcomes))
	for i := range outcomes {
		o, m := &outcomes[i], &messages[i]
		m.Seq, m.Fate, m.Revision, m.Index, m.Error, m.Body = o.Seq, o.Fate, o.Revision, o.Index, o.Error, o.Body
		if o.Lazy != nil {
			body, err := o.Lazy.Build(ctx)
			if err != nil {
				m.Fate = storepb.Outcome_LOST
				h.metrics.Lost.Inc()
			}
			m.Body = body
		}
		batch.Outcomes[i] = m
	}
}

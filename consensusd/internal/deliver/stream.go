package deliver

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

// stream is one attached store.
type stream struct {
	hub  *Hub
	name string
	grpc consensuspb.Consensus_DeliverServer
	wake chan struct{} // one token: there is something to look at
}

// Serve runs one Deliver call until the store leaves, ctx of the call ends, or
// stop is closed.
func (h *Hub) Serve(g consensuspb.Consensus_DeliverServer, stop <-chan struct{}) error {
	first, err := g.Recv()
	if err != nil {
		return err
	}
	start := first.Start
	if start == nil || start.Store == "" {
		return status.Error(codes.InvalidArgument, "the first message of Deliver must name the store and its position")
	}
	ctx, cancel := context.WithCancel(g.Context())
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	after := logid.FromProto(start.After)
	if err := h.locate(ctx, after, start.ClusterId); err != nil {
		return stopped(stop, err)
	}
	s := &stream{hub: h, name: start.Store, grpc: g, wake: make(chan struct{}, 1)}
	if err := h.attach(s, uint64(after.Index)); err != nil {
		return err
	}
	defer h.detach(s)
	h.slog.Info("store attached", "store", s.name, "index", after.Index, "term", after.Term)
	gone := make(chan error, 1)
	go func() { gone <- s.receive() }()
	return stopped(stop, s.send(ctx, uint64(after.Index), gone))
}

// stopped is err, or ErrStopped when that is why.
func stopped(stop <-chan struct{}, err error) error {
	select {
	case <-stop:
		return errs.ErrStopped
	default:
		return err
	}
}

// send delivers what comes after pos until the store is gone. The first
// response goes out at once, so that the store learns whom it follows.
func (s *stream) send(ctx context.Context, pos uint64, gone <-chan error) error {
	var told State
	for first := true; ; first = false {
		entries, state, err := s.hub.next(pos)
		if err != nil {
			return err
		}
		if len(entries) == 0 && state == told && !first {
			select {
			case <-s.wake:
				continue
			case err := <-gone:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if len(entries) > 0 {
			pos = entries[len(entries)-1].Index
		}
		if err := s.grpc.Send(s.hub.response(entries, state)); err != nil {
			return err
		}
		told = state
		s.hub.metrics.Entries.Add(float64(len(entries)))
	}
}

func (h *Hub) response(entries []*consensuspb.Entry, state State) *consensuspb.DeliverResponse {
	return &consensuspb.DeliverResponse{
		Epoch: h.id.Epoch, ClusterId: h.id.Cluster, MemberId: h.id.Member,
		Entries: entries, Commit: state.Commit, Term: state.Term, Publish: state.Publish,
	}
}

// receive takes the store's progress until it leaves.
func (s *stream) receive() error {
	for {
		req, err := s.grpc.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if p := req.Progress; p != nil {
			s.hub.progress(s.name, logid.FromProto(p.Applied), logid.FromProto(p.Synced))
		}
	}
}

// progress moves a store forward, never beyond what was delivered: a store
// cannot allow the truncation of what it has not seen.
func (h *Hub) progress(name string, applied, synced logid.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.mu.stores[name]
	s.applied = max(s.applied, min(uint64(applied.Index), h.mu.ready))
	s.synced = max(s.synced, min(uint64(synced.Index), h.mu.ready))
}

func (h *Hub) attach(s *stream, applied uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.mu.streams) >= storesMax {
		return errs.ErrTooManyRequests
	}
	p := h.mu.stores[s.name]
	if p == nil {
		if len(h.mu.stores) >= storesMax {
			return errs.ErrTooManyRequests
		}
		p = &storeProgress{}
		h.mu.stores[s.name] = p
	}
	// A store that comes back further behind has lost what was not synced, or
	// everything; its word replaces what it said before.
	p.streams++
	p.applied, p.synced = applied, min(p.synced, applied)
	h.mu.streams[s] = struct{}{}
	h.metrics.Streams.Set(float64(len(h.mu.streams)))
	h.attached()
	return nil
}

func (h *Hub) detach(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.stores[s.name].streams--
	delete(h.mu.streams, s)
	h.metrics.Streams.Set(float64(len(h.mu.streams)))
	h.attached()
	h.slog.Info("store detached", "store", s.name)
}

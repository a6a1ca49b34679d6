package watch

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// stream is one client's Watch call.
type stream struct {
	rpc pb.Watch_WatchServer
	out *outbox

	// The rest belongs to the hub.

	connection *connection
	watchers   map[int64]*watcher
	nextID     int64 // where to look for the next automatic id
	closed     bool
	// full: a response was refused and the outbox has not drained since.
	full bool
	// progressAt is when the periodic progress is due; 0 while no watcher of the
	// stream asked for it.
	progressAt dueTime
	// progressFrom is the revision from which a manual progress request is to
	// be answered; 0 if none waits.
	progressFrom int64
}

// Watch serves one client's stream until the client, the server or the stream's
// context ends it. A status that cancelled the context (context.Cause, or Err of
// an interceptor's context) is what the client sees.
func (h *Hub) Watch(rpc pb.Watch_WatchServer) error {
	ctx := rpc.Context()
	select {
	case <-h.ready:
	case <-h.stopping:
		return rpctypes.ErrGRPCStopped
	case <-ctx.Done():
		return endOf(ctx)
	}
	s := &stream{rpc: rpc, out: newOutbox(h.cfg.OutboxBytesMax), watchers: make(map[int64]*watcher)}
	if !h.post(request{stream: s, kind: opened}) {
		return rpctypes.ErrGRPCStopped
	}
	stop := context.AfterFunc(ctx, func() { s.out.end(endOf(ctx)) })
	defer stop()
	// The receiver is not waited for: it ends when the call has, with the error
	// that Recv then returns.
	go s.receive(h)
	err := s.send(h)
	h.post(request{stream: s, kind: closed})
	return err
}

// receive hands the client's requests to the hub, in order, as long as there is
// room for the answers. A half-close ends it, not the stream.
func (s *stream) receive(h *Hub) {
	for {
		in, err := s.rpc.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			if ctx := s.rpc.Context(); ctx.Err() != nil {
				err = endOf(ctx)
			}
			s.out.end(err)
			return
		}
		r, ok := s.read(h, in)
		if ok && (!s.out.waitRoom() || !h.post(r)) {
			return
		}
	}
}

// read turns what the client sent into a request to the hub; what is unknown is
// ignored, as in etcd. Permission is asked for here, off the hub's goroutine.
func (s *stream) read(h *Hub, in *pb.WatchRequest) (request, bool) {
	if create := in.GetCreateRequest(); create != nil {
		r := request{stream: s, kind: created, create: create}
		if h.deps.Authorize != nil {
			key := create.Key
			if len(key) == 0 {
				key = []byte{0}
			}
			r.denied = h.deps.Authorize(s.rpc.Context(), key, create.RangeEnd)
		}
		return r, true
	}
	if cancel := in.GetCancelRequest(); cancel != nil {
		return request{stream: s, kind: canceled, id: cancel.WatchId}, true
	}
	if in.GetProgressRequest() != nil {
		return request{stream: s, kind: progressed}, true
	}
	return request{}, false
}

// send writes what the outbox holds until the stream ends, and returns why.
func (s *stream) send(h *Hub) error {
	var taken []response
	var err error
	for {
		if taken, err = s.out.take(taken); err != nil {
			return err
		}
		for _, r := range taken {
			if err := s.write(r); err != nil {
				return s.writeEnd(err)
			}
			h.metrics.pending.Add(-int64(r.events))
			drained, ended := s.out.sent(r)
			if ended {
				break // take has the reason
			}
			if drained && !h.post(request{stream: s, kind: drainedOutbox}) {
				return rpctypes.ErrGRPCStopped
			}
		}
	}
}

func (s *stream) write(r response) error {
	if err := s.rpc.SendMsg(r.message); err != nil {
		return err
	}
	for _, m := range r.rest {
		if err := s.rpc.SendMsg(m); err != nil {
			return err
		}
	}
	return nil
}

// writeEnd is what the client is told after a failed write: the reason that the
// stream ended, if that is why.
func (s *stream) writeEnd(err error) error {
	if ctx := s.rpc.Context(); ctx.Err() != nil {
		return endOf(ctx)
	}
	return err
}

// endOf is the status of a stream whose context is done: the one that it was
// cancelled with, or etcd's for a plain cancel.
func endOf(ctx context.Context) error {
	for _, err := range []error{context.Cause(ctx), ctx.Err()} {
		if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
			return err
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return status.FromContextError(ctx.Err()).Err()
	}
	return rpctypes.ErrGRPCWatchCanceled
}

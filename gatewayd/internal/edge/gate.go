package edge

import (
	"context"
	"sync"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Unary is the gate of unary calls.
func (e *Edge) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	done := e.config.Metrics.start(info.FullMethod)
	if _, err = e.admit(ctx); err == nil {
		resp, err = handler(ctx, req)
	}
	done.end(err)
	return resp, err
}

// Stream is the gate of streams. A stream's context ends when the gateway stops
// and, if it requires a leader, when none is known for too long; its handler
// must return then, and the client sees why.
func (e *Edge) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	done := e.config.Metrics.start(info.FullMethod)
	err := e.stream(srv, stream, handler)
	done.end(err)
	return err
}

func (e *Edge) stream(srv any, stream grpc.ServerStream, handler grpc.StreamHandler) error {
	leaderRequired, err := e.admit(stream.Context())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer e.streams.enter(cancel, leaderRequired)()
	err = handler(srv, endedStream{stream, ctx})
	if cause := context.Cause(ctx); cause == rpctypes.ErrGRPCNoLeader || cause == rpctypes.ErrGRPCStopped {
		return cause
	}
	return err
}

// Stop ends every stream, and every one that comes after.
func (e *Edge) Stop() { e.streams.end(rpctypes.ErrGRPCStopped, false) }

// admit refuses what etcd refuses before it looks at the request.
func (e *Edge) admit(ctx context.Context) (leaderRequired bool, err error) {
	if v := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataClientAPIVersionKey); len(v) > 0 && !utf8.ValidString(v[0]) {
		return false, rpctypes.ErrGRPCInvalidClientAPIVersion
	}
	if v := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey); len(v) == 0 || v[0] != rpctypes.MetadataHasLeader {
		return false, nil
	}
	if e.leaderless() {
		return true, rpctypes.ErrGRPCNoLeader
	}
	return true, nil
}

// endedStream is a stream whose context the gateway can end.
type endedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s endedStream) Context() context.Context { return s.ctx }

// streams are those under way.
type streams struct {
	mu struct {
		sync.Mutex
		next    uint64
		under   map[uint64]ending
		stopped error
	}
}

type ending struct {
	end            context.CancelCauseFunc
	leaderRequired bool
}

func (s *streams) enter(end context.CancelCauseFunc, leaderRequired bool) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.stopped != nil {
		end(s.mu.stopped)
	}
	if s.mu.under == nil {
		s.mu.under = make(map[uint64]ending)
	}
	id := s.mu.next
	s.mu.next++
	s.mu.under[id] = ending{end, leaderRequired}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.mu.under, id)
	}
}

// end ends those that require a leader, or all of them and for good.
func (s *streams) end(cause error, leaderRequired bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !leaderRequired {
		s.mu.stopped = cause
	}
	for id, e := range s.mu.under {
		if e.leaderRequired || !leaderRequired {
			e.end(cause)
			delete(s.mu.under, id)
		}
	}
}

package lease

import (
	"context"
	"errors"
	"io"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
)

// keepAlivesPerStreamMax bounds the keep-alives of one client stream that wait
// for an answer; beyond it the stream is not read.
const keepAlivesPerStreamMax = 1024

// LeaseKeepAlive answers each request, in order, with the lease's TTL, 0 when
// it does not exist.
func (s *Server) LeaseKeepAlive(stream etcdserverpb.Lease_LeaseKeepAliveServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	asked := make(chan *renewal, keepAlivesPerStreamMax)
	ended := make(chan error, 1)
	go func() { ended <- s.ask(ctx, stream, asked) }()
	for {
		select {
		case r, ok := <-asked:
			if !ok {
				return <-ended
			}
			if err := s.answer(ctx, stream, r); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ask hands a client stream's requests to the Renewer until the client sends no
// more, and closes asked.
func (s *Server) ask(ctx context.Context, stream etcdserverpb.Lease_LeaseKeepAliveServer, asked chan<- *renewal) error {
	defer close(asked)
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r, err := s.Renewer.renew(ctx, req.ID)
		if err != nil {
			return edge.ReadError(ctx, err)
		}
		select {
		case asked <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Server) answer(ctx context.Context, stream etcdserverpb.Lease_LeaseKeepAliveServer, r *renewal) error {
	select {
	case <-r.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.err != nil {
		return edge.ReadError(ctx, r.err)
	}
	return stream.Send(&etcdserverpb.LeaseKeepAliveResponse{
		Header: s.Edge.Header(r.revision, r.term),
		ID:     r.id,
		TTL:    r.ttl,
	})
}

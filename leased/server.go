package leased

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quartet-kv/quartet/leased/internal/lessor"
	"github.com/quartet-kv/quartet/proto/leasepb"
)

// Limits of the service.
const (
	// requestIDsMax bounds the leases of one message.
	requestIDsMax = 65536
	// streamRequestsMax bounds the messages of one stream that wait for an
	// answer; beyond it the stream is not read.
	streamRequestsMax = 64
)

type server struct {
	leasepb.UnimplementedLessorServer
	lessor *lessor.Lessor
}

// KeepAlive answers each message by one, in order.
func (s *server) KeepAlive(stream leasepb.Lessor_KeepAliveServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	asked := make(chan lessor.Pending, streamRequestsMax)
	ended := make(chan error, 1)
	go func() {
		defer close(asked)
		ended <- s.receive(ctx, stream, asked)
	}()
	for p := range asked {
		res, err := p.Wait(ctx)
		if err == nil {
			err = stream.Send(&leasepb.KeepAliveResults{Ttls: res.TTLs, Revision: res.Revision, RaftTerm: uint64(res.Term)})
		}
		if err != nil {
			return toStatus(err)
		}
	}
	return toStatus(<-ended)
}

// receive hands the stream's messages to the lessor until there are no more.
func (s *server) receive(ctx context.Context, stream leasepb.Lessor_KeepAliveServer, asked chan<- lessor.Pending) error {
	for {
		batch, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p, err := s.ask(ctx, lessor.Renew, batch.Ids)
		if err != nil {
			return err
		}
		select {
		case asked <- p:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *server) ask(ctx context.Context, kind lessor.Kind, ids []int64) (lessor.Pending, error) {
	if len(ids) > requestIDsMax {
		return lessor.Pending{}, status.Errorf(codes.InvalidArgument, "%d leases in one message, at most %d may be", len(ids), requestIDsMax)
	}
	return s.lessor.Ask(ctx, kind, ids)
}

func (s *server) call(ctx context.Context, kind lessor.Kind, ids []int64) (lessor.Result, error) {
	p, err := s.ask(ctx, kind, ids)
	if err != nil {
		return lessor.Result{}, toStatus(err)
	}
	res, err := p.Wait(ctx)
	return res, toStatus(err)
}

// TimeToLive answers with what remains of each lease.
func (s *server) TimeToLive(ctx context.Context, r *leasepb.TimeToLiveRequest) (*leasepb.TimeToLiveResponse, error) {
	res, err := s.call(ctx, lessor.Remaining, r.Ids)
	if err != nil {
		return nil, err
	}
	out := &leasepb.TimeToLiveResponse{Granted: res.TTLs, RemainingMs: make([]int64, len(res.Left))}
	for i, left := range res.Left {
		out.RemainingMs[i] = -1
		if left >= 0 {
			out.RemainingMs[i] = int64(left / time.Millisecond)
		}
	}
	return out, nil
}

// List answers with every lease, the soonest to expire first.
func (s *server) List(ctx context.Context, _ *leasepb.ListRequest) (*leasepb.ListResponse, error) {
	res, err := s.call(ctx, lessor.All, nil)
	if err != nil {
		return nil, err
	}
	return &leasepb.ListResponse{Ids: res.IDs}, nil
}

// GetStatus tells whether this lessor is primary.
func (s *server) GetStatus(ctx context.Context, _ *leasepb.GetStatusRequest) (*leasepb.Status, error) {
	res, err := s.lessor.Status(ctx)
	return res, toStatus(err)
}

// toStatus makes a context's end what it is on the wire.
func toStatus(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	return err
}

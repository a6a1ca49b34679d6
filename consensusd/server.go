package consensusd

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/consensusd/internal/node"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/errs"
)

// server is the Consensus service as gRPC wants it.
type server struct {
	consensuspb.UnimplementedConsensusServer
	c *Consensusd
}

// Propose binds a stream to the term that this member leads, and ends it when
// that is over or a request is refused.
func (s *server) Propose(stream consensuspb.Consensus_ProposeServer) error {
	n := s.c.node
	lead := n.Leadership()
	if lead == nil {
		return errs.ErrNotLeader
	}
	if err := stream.Send(&consensuspb.ProposeResponse{Term: lead.Term}); err != nil {
		return err
	}
	// Receiving has a goroutine of its own, since nothing else can end a Recv but
	// the end of the call.
	ended := make(chan error, 1)
	go func() { ended <- s.takeProposals(stream, n.Proposer(lead.Term)) }()
	select {
	case err := <-ended:
		return asStatus(err)
	case <-lead.Ended:
		// A refusal that is on its way says more.
		select {
		case err := <-ended:
			return asStatus(err)
		default:
			return errs.ErrNotLeader
		}
	case <-n.Stopped():
		return errs.ErrStopped
	}
}

func (s *server) takeProposals(stream consensuspb.Consensus_ProposeServer, p *node.Proposer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, payload := range req.Payloads {
			if len(payload) > s.c.cfg.PayloadBytesMax {
				return errs.ErrPayloadTooLarge
			}
		}
		if len(req.Payloads) == 0 {
			continue
		}
		if err := p.Propose(stream.Context(), req.Payloads); err != nil {
			return err
		}
	}
}

// ReadIndex implements consensuspb.ConsensusServer.
func (s *server) ReadIndex(ctx context.Context, _ *consensuspb.ReadIndexRequest) (*consensuspb.ReadIndexResponse, error) {
	point, err := s.c.node.ReadIndex(ctx)
	if err != nil {
		return nil, asStatus(err)
	}
	st, _ := s.c.node.Observe()
	return &consensuspb.ReadIndexResponse{
		Read: &logpb.LogID{Epoch: st.Epoch, Index: uint64(point.Index), Term: uint64(point.Term)},
		Term: uint64(point.Term),
	}, nil
}

// Deliver implements consensuspb.ConsensusServer.
func (s *server) Deliver(stream consensuspb.Consensus_DeliverServer) error {
	return asStatus(s.c.hub.Serve(stream, s.c.node.Stopped()))
}

// Observe implements consensuspb.ConsensusServer.
func (s *server) Observe(_ *consensuspb.ObserveRequest, stream consensuspb.Consensus_ObserveServer) error {
	for {
		_, next := s.c.node.Observe()
		st, err := s.status()
		if err != nil {
			return err
		}
		if err := stream.Send(st); err != nil {
			return err
		}
		select {
		case <-next:
		case <-stream.Context().Done():
			return asStatus(stream.Context().Err())
		case <-s.c.node.Stopped():
			return errs.ErrStopped
		}
	}
}

// GetStatus implements consensuspb.ConsensusServer.
func (s *server) GetStatus(context.Context, *consensuspb.GetStatusRequest) (*consensuspb.Status, error) {
	return s.status()
}

// status is the view with the positions of this moment.
func (s *server) status() (*consensuspb.Status, error) {
	view, _ := s.c.node.Observe()
	st := proto.CloneOf(view)
	var err error
	if st.First, err = s.c.storage.FirstIndex(); err != nil {
		return nil, asStatus(err)
	}
	if st.Last, err = s.c.storage.LastIndex(); err != nil {
		return nil, asStatus(err)
	}
	progress := s.c.hub.Progress()
	st.Commit = s.c.hub.Ready()
	st.Applied, st.Synced = uint64(progress.Applied), uint64(progress.Synced)
	return st, nil
}

// asStatus keeps errors that are statuses; a context's end becomes one.
func asStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.FromContextError(err).Err()
}

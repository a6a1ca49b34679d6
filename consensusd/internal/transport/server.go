package transport

import (
	"errors"
	"io"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/peerpb"
	"github.com/quartet-kv/quartet/services/errs"
)

// Server is the receiving side, as gRPC wants it.
func (t *Transport) Server() peerpb.PeerServer { return server{t: t} }

type server struct {
	peerpb.UnimplementedPeerServer
	t *Transport
}

// Send takes one peer's stream.
func (s server) Send(stream peerpb.Peer_SendServer) error {
	t := s.t
	select {
	case <-t.running:
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	for {
		batch, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&peerpb.SendResponse{})
		}
		if err != nil {
			return err
		}
		select {
		case <-t.stopped:
			return errs.ErrStopped
		default:
		}
		messages, err := t.decode(batch)
		if err != nil {
			t.log.Warn("peer stream refused", "from", batch.From, "err", err)
			return err
		}
		if err := t.receiver.Receive(stream.Context(), batch.From, messages, batch.Report); err != nil {
			return err
		}
	}
}

// decode checks whom a batch is from and for, and decodes its messages.
func (t *Transport) decode(batch *peerpb.Messages) ([]*raftpb.Message, error) {
	if batch.ClusterId != t.id.Cluster || batch.To != t.id.Member {
		return nil, status.Errorf(codes.FailedPrecondition, "this is member %x of cluster %x, not member %x of cluster %x",
			t.id.Member, t.id.Cluster, batch.To, batch.ClusterId)
	}
	if t.peers[batch.From] == nil {
		return nil, status.Errorf(codes.PermissionDenied, "%x is not a member of cluster %x", batch.From, t.id.Cluster)
	}
	messages := make([]*raftpb.Message, 0, len(batch.Messages))
	for _, encoded := range batch.Messages {
		m := &raftpb.Message{}
		if err := proto.Unmarshal(encoded, m); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "decode a raft message: %v", err)
		}
		if m.GetFrom() != batch.From {
			return nil, status.Errorf(codes.InvalidArgument, "a message from %x in a batch from %x", m.GetFrom(), batch.From)
		}
		messages = append(messages, m)
	}
	return messages, nil
}

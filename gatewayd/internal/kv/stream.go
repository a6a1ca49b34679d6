package kv

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/gatewayd/internal/wire"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/store"
)

// streamFirstKeys is etcd's bound on the first chunk, so that a client soon has
// something to do.
const streamFirstKeys = 10

// rangeStream forwards a scan's chunks. Header, more and count are on the last
// one only; the response's revision is that of the scan's begin.
func (s *Server) rangeStream(r *rangeRequest, stream grpc.ServerStream) error {
	if err := checkRangeStream(&r.Msg); err != nil {
		return err
	}
	ctx := stream.Context()
	floor, err := s.streamFloor(ctx, r.Msg.Serializable)
	if err != nil {
		return edge.ReadError(ctx, err)
	}
	if r.Msg.CountOnly {
		return s.streamCount(r, stream, floor)
	}
	req := scanRequest(r.Raw, floor)
	req.FirstKeys = streamFirstKeys
	req.ChunkBytes = uint32(s.config.RequestBytesMax)
	err = s.Reader.Scan(ctx, req, func(c *storepb.ScanChunk) error {
		if len(c.Kvs) == 0 && !c.Last {
			return nil
		}
		var head, tail []byte
		if c.Last {
			head, tail = s.Edge.AppendHeader(nil, c.Revision, c.RaftTerm), appendRangeEnd(nil, c)
		}
		return stream.SendMsg(streamResponse(head, c.Kvs, tail))
	})
	return edge.ReadError(ctx, err)
}

// streamFloor asks for the floor within a request's time; the stream itself
// lasts as long as its client reads.
func (s *Server) streamFloor(ctx context.Context, serializable bool) (store.Floor, error) {
	limited, cancel := s.Edge.Limit(ctx)
	defer cancel()
	return s.floor(limited, serializable)
}

// streamCount answers with a single message, as a small read does.
func (s *Server) streamCount(r *rangeRequest, stream grpc.ServerStream, floor store.Floor) error {
	ctx := stream.Context()
	limited, cancel := s.Edge.Limit(ctx)
	defer cancel()
	result, err := s.Reader.Read(limited, &storepb.ReadRequest{Kind: storepb.ReadRequest_RANGE, Body: r.Raw}, floor)
	if err != nil {
		return edge.ReadError(ctx, err)
	}
	head := s.Edge.AppendHeader(nil, result.Revision, uint64(result.Term))
	return stream.SendMsg(streamResponse(head, result.Body, nil))
}

// streamResponse wraps the parts of a RangeResponse into a RangeStreamResponse,
// whose only field it is.
func streamResponse(head, kvs, tail []byte) *wire.Response {
	b := make([]byte, 0, 2*protowire.SizeVarint(1<<32)+len(head))
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(head)+len(kvs)+len(tail)))
	return &wire.Response{Parts: [][]byte{append(b, head...), kvs, tail}}
}

package kv

import (
	"context"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/gatewayd/internal/wire"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/store"
)

func (s *Server) rangeKeys(ctx context.Context, r *rangeRequest) (*wire.Response, error) {
	if err := checkRange(&r.Msg); err != nil {
		return nil, err
	}
	limited, cancel := s.Edge.Limit(ctx)
	defer cancel()
	floor, err := s.floor(limited, r.Msg.Serializable)
	if err != nil {
		return nil, edge.ReadError(ctx, err)
	}
	result, err := s.Reader.Read(limited, &storepb.ReadRequest{Kind: storepb.ReadRequest_RANGE, Body: r.Raw}, floor)
	if err != nil {
		return nil, edge.ReadError(ctx, err)
	}
	if result.Large {
		return s.scan(ctx, r, floor)
	}
	return s.Edge.Answer(result.Revision, uint64(result.Term), result.Body), nil
}

// scansMax bounds the large responses that are being put together, since each
// is held whole; others wait their turn.
const scansMax = 16

// scan puts a large response together from chunks, without copying them. It
// may take as long as the client waits.
func (s *Server) scan(ctx context.Context, r *rangeRequest, floor store.Floor) (*wire.Response, error) {
	select {
	case s.scans <- struct{}{}:
		defer func() { <-s.scans }()
	case <-ctx.Done():
		return nil, edge.ReadError(ctx, ctx.Err())
	}
	parts := make([][]byte, 1, 16) // the first is for the header
	err := s.Reader.Scan(ctx, scanRequest(r.Raw, floor), func(c *storepb.ScanChunk) error {
		if len(c.Kvs) > 0 {
			parts = append(parts, c.Kvs)
		}
		if c.Last {
			parts[0] = s.Edge.AppendHeader(nil, c.Revision, c.RaftTerm)
			parts = append(parts, appendRangeEnd(nil, c))
		}
		return nil
	})
	if err != nil {
		return nil, edge.ReadError(ctx, err)
	}
	return &wire.Response{Parts: parts}, nil
}

func scanRequest(encoded []byte, floor store.Floor) *storepb.ScanRequest {
	return &storepb.ScanRequest{
		MinIndex:    uint64(floor.Index),
		Epoch:       uint64(floor.Epoch),
		MinRevision: floor.Revision,
		Range:       encoded,
	}
}

// Numbers of RangeResponse's fields after the header, which is 1.
const (
	fieldMore  = 3
	fieldCount = 4
)

// appendRangeEnd appends the fields that follow the key-values.
func appendRangeEnd(b []byte, last *storepb.ScanChunk) []byte {
	if last.More {
		b = protowire.AppendVarint(protowire.AppendTag(b, fieldMore, protowire.VarintType), 1)
	}
	if last.Count != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, fieldCount, protowire.VarintType), uint64(last.Count))
	}
	return b
}

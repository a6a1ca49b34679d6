package kv

import (
	"context"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/gatewayd/internal/wire"
	"github.com/quartet-kv/quartet/proto/logpb"
)

// compact is checked by the store alone. A physical one waits, as long as the
// client does, until the space can be reclaimed.
func (s *Server) compact(ctx context.Context, r *compactRequest) (*wire.Response, error) {
	resp, err := s.propose(ctx, logpb.Command_COMPACT, r.Raw)
	if err != nil || !r.Msg.Physical {
		return resp, err
	}
	if err := s.WaitCompacted(ctx, r.Msg.Revision); err != nil {
		return nil, edge.ReadError(ctx, err)
	}
	return resp, nil
}

package kv

import (
	"context"

	"github.com/quartet-kv/quartet/gatewayd/internal/wire"
	"github.com/quartet-kv/quartet/proto/logpb"
)

func (s *Server) deleteRange(ctx context.Context, r *deleteRequest) (*wire.Response, error) {
	if err := checkDelete(&r.Msg); err != nil {
		return nil, err
	}
	return s.propose(ctx, logpb.Command_DELETE_RANGE, r.Raw)
}

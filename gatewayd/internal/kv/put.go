package kv

import (
	"context"

	"github.com/quartet-kv/quartet/gatewayd/internal/wire"
	"github.com/quartet-kv/quartet/proto/logpb"
)

// put checks and proposes; the outcome is the answer.
func (s *Server) put(ctx context.Context, r *putRequest) (*wire.Response, error) {
	if err := checkPut(&r.Msg); err != nil {
		return nil, err
	}
	return s.propose(ctx, logpb.Command_PUT, r.Raw)
}

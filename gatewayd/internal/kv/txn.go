package kv

import (
	"context"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/gatewayd/internal/wire"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
)

func (s *Server) txn(ctx context.Context, r *txnRequest) (*wire.Response, error) {
	if err := checkTxn(&r.Msg, s.config.TxnOpsMax); err != nil {
		return nil, err
	}
	// After the bound on operations, so that the work here is bounded too.
	if err := checkOverlaps(&r.Msg); err != nil {
		return nil, err
	}
	readOnly, serializable := kindOfTxn(&r.Msg)
	if !readOnly {
		return s.propose(ctx, logpb.Command_TXN, r.Raw)
	}
	return s.readTxn(ctx, r, serializable)
}

// readTxn evaluates a transaction of ranges at a store, past the log.
func (s *Server) readTxn(ctx context.Context, r *txnRequest, serializable bool) (*wire.Response, error) {
	limited, cancel := s.Edge.Limit(ctx)
	defer cancel()
	floor, err := s.floor(limited, serializable)
	if err != nil {
		return nil, edge.ReadError(ctx, err)
	}
	result, err := s.Reader.Read(limited, &storepb.ReadRequest{Kind: storepb.ReadRequest_TXN, Body: r.Raw}, floor)
	if err != nil {
		return nil, edge.ReadError(ctx, err)
	}
	if result.Large {
		// It does not fit a batch of reads and cannot be scanned: an outcome has
		// no such bound.
		return s.propose(ctx, logpb.Command_TXN, r.Raw)
	}
	return s.Edge.Answer(result.Revision, uint64(result.Term), result.Body), nil
}

// kindOfTxn tells whether a transaction holds nothing but ranges, and whether
// all of those are serializable. A nested transaction, even one of ranges, is
// not read-only; an empty one is both.
func kindOfTxn(r *etcdserverpb.TxnRequest) (readOnly, serializable bool) {
	serializable = true
	for _, branch := range [2][]*etcdserverpb.RequestOp{r.Success, r.Failure} {
		for _, op := range branch {
			get := op.GetRequestRange()
			if get == nil {
				return false, false
			}
			serializable = serializable && get.Serializable
		}
	}
	return true, serializable
}

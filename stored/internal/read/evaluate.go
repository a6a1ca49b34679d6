package read

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/stored/internal/kv"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
)

var (
	errMalformed = status.Error(codes.InvalidArgument, "quartet: malformed read")
	errNotARead  = status.Error(codes.InvalidArgument, "quartet: a transaction that writes is not a read")
	errLarge     = errors.New("quartet: answer is too large")
)

// evaluate answers one small read.
func (s *Server) evaluate(ctx context.Context, r *storepb.ReadRequest, result *storepb.ReadResult) {
	var err error
	switch r.Kind {
	case storepb.ReadRequest_RANGE:
		err = s.evaluateRange(ctx, r.Body, result)
	case storepb.ReadRequest_TXN:
		err = s.evaluateTxn(ctx, r.Body, result)
	case storepb.ReadRequest_LEASE:
		err = s.evaluateLease(ctx, r.Body, result)
	default:
		err = errMalformed
	}
	if errors.Is(err, errLarge) {
		result.Large, result.Body = true, nil
		return
	}
	if err != nil {
		result.Body, result.Error = nil, errs.Text(s.asStatus(err))
		result.Revision = max(result.Revision, s.state.View().Revision)
	}
}

func (s *Server) evaluateRange(ctx context.Context, body []byte, result *storepb.ReadResult) error {
	var req etcdserverpb.RangeRequest
	if err := proto.Unmarshal(body, &req); err != nil {
		return errMalformed
	}
	answer, revision, err := s.ranged(ctx, &req, SmallBytesMax)
	if err != nil {
		return err
	}
	result.Revision = revision
	if answer.Large {
		return errLarge
	}
	result.Body = answer.AppendBody(nil)
	return nil
}

// ranged answers a range, and says the store's revision at that time.
func (s *Server) ranged(ctx context.Context, req *etcdserverpb.RangeRequest, bytesMax int) (*mvcc.Ranged, int64, error) {
	view := s.state.View()
	if err := mvcc.CheckRange(req); err != nil {
		return nil, view.Revision, err
	}
	asked := max(0, req.Revision)
	if asked > view.Revision {
		// The keyspace is ahead of the view by what is being applied.
		return nil, view.Revision, view.CheckRevision(asked)
	}
	if err := view.CheckRevision(asked); err != nil {
		return nil, view.Revision, err
	}
	snapshot := s.state.At(ctx, asked)
	answer, err := mvcc.Range(snapshot, req, bytesMax)
	if err == nil {
		err = s.state.Intact(snapshot.Revision())
	}
	revision := view.Revision
	if asked == 0 {
		revision = snapshot.Revision()
	}
	return answer, revision, err
}

// Numbers of fields of the responses that are put together here.
const (
	fieldOpRange        = 1 // of ResponseOp
	fieldTxnSucceeded   = 2
	fieldTxnResponses   = 3
	fieldLeaseID        = 2
	fieldLeaseTTL       = 3
	fieldLeaseGranted   = 4
	fieldLeaseKeys      = 5
	ttlOfNone           = -1
	opAndHeaderBytesMax = 64
)

// evaluateTxn answers a transaction of ranges, all at one revision.
func (s *Server) evaluateTxn(ctx context.Context, body []byte, result *storepb.ReadResult) error {
	var req etcdserverpb.TxnRequest
	if err := proto.Unmarshal(body, &req); err != nil {
		return errMalformed
	}
	snapshot := s.state.At(ctx, 0)
	result.Revision = snapshot.Revision()
	choices, err := mvcc.Choose(snapshot, &req)
	if err != nil {
		return err
	}
	ranges, err := s.checkRanges(choices.Branch(&req), result.Revision)
	if err != nil {
		return err
	}
	var out []byte
	if choices.Succeeded {
		out = kv.AppendInt(out, fieldTxnSucceeded, 1)
	}
	for _, r := range ranges {
		src := snapshot
		if r.Revision > 0 {
			src = s.state.At(ctx, r.Revision)
		}
		answer, err := mvcc.Range(src, r, SmallBytesMax)
		if err == nil {
			err = s.state.Intact(src.Revision())
		}
		if err != nil {
			return err
		}
		response := answer.AppendBody(kv.AppendHeader(nil, result.Revision))
		op := kv.AppendMessage(make([]byte, 0, len(response)+opAndHeaderBytesMax), fieldOpRange, response)
		out = kv.AppendMessage(out, fieldTxnResponses, op)
	}
	result.Body = out
	return nil
}

// checkRanges returns the operations of the chosen branch.
func (s *Server) checkRanges(ops []*etcdserverpb.RequestOp, revision int64) ([]*etcdserverpb.RangeRequest, error) {
	ranges := make([]*etcdserverpb.RangeRequest, 0, len(ops))
	for _, op := range ops {
		r := op.GetRequestRange()
		if r == nil {
			return nil, errNotARead
		}
		if err := mvcc.CheckRange(r); err != nil {
			return nil, err
		}
		if err := mvcc.CheckRevision(r.Revision, revision, s.state.View().Compact); err != nil {
			return nil, err
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

// evaluateLease tells what was granted, and the keys. The remaining time is the
// lessor's to tell: TTL is 0, or -1 when there is no such lease.
func (s *Server) evaluateLease(ctx context.Context, body []byte, result *storepb.ReadResult) error {
	var req etcdserverpb.LeaseTimeToLiveRequest
	if err := proto.Unmarshal(body, &req); err != nil {
		return errMalformed
	}
	view := s.state.View()
	result.Revision = view.Revision
	if err := s.state.WaitStamp(ctx, view.Stamp); err != nil {
		return err
	}
	l, ok, err := mvcc.EngineLease(s.state.Engine, req.ID, view.Stamp)
	if err != nil {
		return s.asStatus(err)
	}
	out := kv.AppendInt(nil, fieldLeaseID, req.ID)
	if !ok {
		result.Body = kv.AppendInt(out, fieldLeaseTTL, ttlOfNone)
		return nil
	}
	out = kv.AppendInt(out, fieldLeaseGranted, l.TTL)
	if req.Keys {
		err = mvcc.EngineAttached(s.state.Engine, req.ID, view.Stamp, func(key []byte) {
			out = kv.AppendMessage(out, fieldLeaseKeys, key)
		})
	}
	result.Body = out
	return s.asStatus(err)
}

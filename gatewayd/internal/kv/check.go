package kv

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

func checkRange(r *etcdserverpb.RangeRequest) error {
	if len(r.Key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	if _, ok := etcdserverpb.RangeRequest_SortOrder_name[int32(r.SortOrder)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	if _, ok := etcdserverpb.RangeRequest_SortTarget_name[int32(r.SortTarget)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return nil
}

// checkRangeStream refuses what a stream in key order cannot do; clients fall
// back to Range on Unimplemented. A sort target without an order sorts a Range,
// so it is refused here: etcd takes it and sorts each chunk for itself.
func checkRangeStream(r *etcdserverpb.RangeRequest) error {
	if err := checkRange(r); err != nil {
		return err
	}
	if !inKeyOrder(r) {
		return status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	}
	if r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0 {
		return status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
	}
	return nil
}

func inKeyOrder(r *etcdserverpb.RangeRequest) bool {
	return r.SortTarget == etcdserverpb.RangeRequest_KEY && r.SortOrder != etcdserverpb.RangeRequest_DESCEND
}

func checkPut(r *etcdserverpb.PutRequest) error {
	switch {
	case len(r.Key) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case r.IgnoreValue && len(r.Value) != 0:
		return rpctypes.ErrGRPCValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return rpctypes.ErrGRPCLeaseProvided
	}
	return nil
}

func checkDelete(r *etcdserverpb.DeleteRangeRequest) error {
	if len(r.Key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	return nil
}

// checkTxn checks shape and number of operations. A nested transaction is
// bounded by what its parent has left, so depth is bounded too.
func checkTxn(r *etcdserverpb.TxnRequest, opsMax int) error {
	ops := max(len(r.Compare), len(r.Success), len(r.Failure))
	if ops > opsMax {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.Compare {
		if len(c.Key) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, branch := range [2][]*etcdserverpb.RequestOp{r.Success, r.Failure} {
		for _, op := range branch {
			if err := checkOp(op, opsMax-ops); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOp(op *etcdserverpb.RequestOp, opsMax int) error {
	switch op := op.Request.(type) {
	case *etcdserverpb.RequestOp_RequestRange:
		return checkRange(op.RequestRange)
	case *etcdserverpb.RequestOp_RequestPut:
		return checkPut(op.RequestPut)
	case *etcdserverpb.RequestOp_RequestDeleteRange:
		return checkDelete(op.RequestDeleteRange)
	case *etcdserverpb.RequestOp_RequestTxn:
		return checkTxn(op.RequestTxn, opsMax)
	}
	return rpctypes.ErrGRPCKeyNotFound // what etcd says of an empty operation
}

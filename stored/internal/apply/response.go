package apply

import (
	"context"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/quartet-kv/quartet/services/keyspace"
	"github.com/quartet-kv/quartet/stored/internal/kv"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
)

// Numbers of fields of etcd's responses.
const (
	fieldPutPrevKV     = 2
	fieldDeleted       = 2
	fieldDeletePrevKVs = 3
	fieldTxnSucceeded  = 2
	fieldTxnResponses  = 3
	fieldOpRange       = 1 // of ResponseOp
	fieldOpPut         = 2
	fieldOpDelete      = 3
	fieldOpTxn         = 4
	fieldGrantID       = 2
	fieldGrantTTL      = 3
)

// opResponse is how one operation of a transaction ended. A delete that is a
// command of its own is one too.
type opResponse struct {
	kind     protowire.Number // of ResponseOp; 0 is an operation of no kind
	revision int64            // the header's
	deleted  int64
	prev     []keyspace.Item // prev_kv of a put, prev_kvs of a delete
	ranged   *pendingRange
	txn      *txnResponse
}

// txnResponse is a transaction's response, encoded when it is sent.
type txnResponse struct {
	succeeded bool
	ops       []opResponse
}

// lazyTxn is the body of a transaction's outcome.
type lazyTxn struct {
	state *mvcc.State
	txnResponse
	bytes int
}

// pendingRange is a range within a transaction: at a revision, with what the
// transaction had changed before it.
type pendingRange struct {
	req      *etcdserverpb.RangeRequest
	revision int64
	over     []change
	answer   *mvcc.Ranged // set when it could be answered at no cost
}

// deleted is the response to a delete of the changes.
func deleted(req *etcdserverpb.DeleteRangeRequest, changes []change) opResponse {
	op := opResponse{kind: fieldOpDelete, deleted: int64(len(changes))}
	if req.PrevKv {
		op.prev = make([]keyspace.Item, len(changes))
		for i := range changes {
			op.prev[i] = changes[i].prev
		}
	}
	return op
}

// Bytes implements outcome.Lazy.
func (t *lazyTxn) Bytes() int { return t.bytes }

// Build implements outcome.Lazy.
func (t *lazyTxn) Build(ctx context.Context) ([]byte, error) {
	return t.append(nil, t.state, ctx)
}

// append appends the TxnResponse, without header.
func (t *txnResponse) append(b []byte, state *mvcc.State, ctx context.Context) ([]byte, error) {
	if t.succeeded {
		b = kv.AppendInt(b, fieldTxnSucceeded, 1)
	}
	var scratch, op []byte
	for i := range t.ops {
		var err error
		if scratch, err = t.ops[i].append(scratch[:0], state, ctx); err != nil {
			return nil, err
		}
		op = op[:0]
		if t.ops[i].kind != 0 {
			op = kv.AppendMessage(op, t.ops[i].kind, scratch)
		}
		b = kv.AppendMessage(b, fieldTxnResponses, op)
	}
	return b, nil
}

// append appends the operation's own response.
func (o *opResponse) append(b []byte, state *mvcc.State, ctx context.Context) ([]byte, error) {
	switch o.kind {
	case fieldOpTxn:
		// Etcd fills in the outermost header only; a nested one is there, empty.
		return o.txn.append(kv.AppendMessage(b, kv.FieldHeader, nil), state, ctx)
	case fieldOpRange:
		answer := o.ranged.answer
		if answer == nil {
			var err error
			if answer, err = o.ranged.evaluate(ctx, state); err != nil {
				return nil, err
			}
		}
		return answer.AppendBody(kv.AppendHeader(b, o.revision)), nil
	case fieldOpPut:
		b = kv.AppendHeader(b, o.revision)
		for i := range o.prev {
			b = kv.AppendField(b, fieldPutPrevKV, &o.prev[i])
		}
		return b, nil
	case fieldOpDelete:
		return o.appendDelete(kv.AppendHeader(b, o.revision)), nil
	default:
		return b, nil
	}
}

func (o *opResponse) appendDelete(b []byte) []byte {
	b = kv.AppendInt(b, fieldDeleted, o.deleted)
	for i := range o.prev {
		b = kv.AppendField(b, fieldDeletePrevKVs, &o.prev[i])
	}
	return b
}

package edge

import (
	"context"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/logid"
	"github.com/quartet-kv/quartet/services/store"
)

// Reader answers small reads at a store.
type Reader interface {
	Read(ctx context.Context, read *storepb.ReadRequest, floor store.Floor) (store.Result, error)
}

// Current is a complete header with the revision that a store has now, for
// responses that are not about a revision of their own.
func (e *Edge) Current(ctx context.Context, r Reader) (*etcdserverpb.ResponseHeader, error) {
	limited, cancel := e.Limit(ctx)
	defer cancel()
	result, err := e.touch(limited, r, store.Floor{Revision: e.Floor.Revision()})
	if err != nil {
		return nil, ReadError(ctx, err)
	}
	return e.Header(result.Revision, uint64(result.Term)), nil
}

// Reach returns when a store has answered from a position of the log.
func (e *Edge) Reach(ctx context.Context, r Reader, at logid.ID) error {
	result, err := e.touch(ctx, r, store.Floor{Index: at.Index, Epoch: at.Epoch})
	if err == nil {
		e.Floor.Raise(result.Revision, uint64(result.Term))
	}
	return err
}

// touch asks the cheapest question there is: whether one key exists.
func (e *Edge) touch(ctx context.Context, r Reader, floor store.Floor) (store.Result, error) {
	body, err := proto.Marshal(&etcdserverpb.RangeRequest{Key: []byte{0}, CountOnly: true, Serializable: true})
	if err != nil {
		return store.Result{}, err
	}
	return r.Read(ctx, &storepb.ReadRequest{Kind: storepb.ReadRequest_RANGE, Body: body}, floor)
}

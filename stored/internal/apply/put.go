package apply

import (
	"errors"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/services/keyspace"
	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/kv"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
)

// KeyBytesMax is the longest key, so that every row about it fits the engines.
// It is part of the function from log to state.
const KeyBytesMax = engine.KeyBytesMax - 16

// What an entry is refused for that no gateway proposes.
var (
	errUnknownCommand = errors.New("quartet: unknown command")
	errMalformedBody  = errors.New("quartet: malformed command")
)

func (m *Machine) applyPut(body []byte) (result, error) {
	r := &m.put
	if err := r.decode(body); err != nil {
		return refused(errMalformedBody)
	}
	m.write.begin(false)
	prev, reason, err := m.checkPut(present{m}, r)
	if err != nil || reason != nil {
		return result{refused: reason}, err
	}
	m.gatherPut(r, prev)
	m.commit()
	var response []byte
	if r.prevKV && prev.Exists() {
		response = kv.AppendField(make([]byte, 0, kv.FieldSize(&prev)), fieldPutPrevKV, &prev)
	}
	return result{body: response}, nil
}

// checkPut returns the key as it was, or why the put is refused.
func (m *Machine) checkPut(src mvcc.Source, r *putRequest) (prev keyspace.Item, reason, err error) {
	switch {
	case len(r.key) == 0:
		return prev, rpctypes.ErrGRPCEmptyKey, nil
	case len(r.key) > KeyBytesMax:
		return prev, rpctypes.ErrGRPCRequestTooLarge, nil
	case r.ignoreValue && len(r.value) > 0:
		return prev, rpctypes.ErrGRPCValueProvided, nil
	case r.ignoreLease && r.lease != 0:
		return prev, rpctypes.ErrGRPCLeaseProvided, nil
	}
	if r.lease != 0 {
		_, ok, err := m.lookupLease(r.lease)
		if err != nil {
			return prev, nil, err
		}
		if !ok {
			return prev, rpctypes.ErrGRPCLeaseNotFound, nil
		}
	}
	prev, err = src.Get(r.key)
	if err == nil && !prev.Exists() && (r.ignoreValue || r.ignoreLease) {
		return prev, rpctypes.ErrGRPCKeyNotFound, nil
	}
	return prev, nil, err
}

// gatherPut adds the put to the command's changes.
func (m *Machine) gatherPut(r *putRequest, prev keyspace.Item) {
	value, lease := r.value, r.lease
	if r.ignoreValue {
		value = prev.Value
	}
	if r.ignoreLease {
		lease = prev.Lease
	}
	m.write.put(r.key, value, lease, m.meta.Revision+1, prev)
}

func (m *Machine) applyDeleteRange(body []byte) (result, error) {
	var req etcdserverpb.DeleteRangeRequest
	if err := proto.Unmarshal(body, &req); err != nil {
		return refused(errMalformedBody)
	}
	if len(req.Key) == 0 {
		return refused(rpctypes.ErrGRPCEmptyKey)
	}
	m.write.begin(false)
	if err := m.gatherDelete(present{m}, &req); err != nil {
		return result{}, err
	}
	op := deleted(&req, m.write.changes)
	m.commit()
	return result{body: op.appendDelete(nil)}, nil
}

// gatherDelete adds the delete of every key of the range.
func (m *Machine) gatherDelete(src mvcc.Source, req *etcdserverpb.DeleteRangeRequest) error {
	lo, hi, single := mvcc.Bounds(req.Key, req.RangeEnd)
	if single {
		prev, err := src.Get(lo)
		if err == nil && prev.Exists() {
			m.write.delete(prev, m.meta.Revision+1)
		}
		return err
	}
	var found []keyspace.Item
	err := src.Ascend(lo, hi, 0, func(it *keyspace.Item) bool {
		found = append(found, *it)
		return true
	})
	for _, prev := range found {
		m.write.delete(prev, m.meta.Revision+1)
	}
	return err
}

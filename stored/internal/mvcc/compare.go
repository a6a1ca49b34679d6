package mvcc

import (
	"bytes"
	"cmp"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/services/keyspace"
)

// Choices are the outcomes of a transaction's compares: its own, and those of
// the transactions nested in the chosen branch, in the order of their
// operations. All are taken before anything is written.
type Choices struct {
	Succeeded bool
	Nested    []*Choices
}

// Branch is the list of operations that was chosen.
func (c *Choices) Branch(txn *etcdserverpb.TxnRequest) []*etcdserverpb.RequestOp {
	if c.Succeeded {
		return txn.GetSuccess()
	}
	return txn.GetFailure()
}

// Choose evaluates the compares of a transaction and of those nested in it,
// against the state before it.
func Choose(src Source, txn *etcdserverpb.TxnRequest) (*Choices, error) {
	c := &Choices{Succeeded: true}
	for _, compare := range txn.GetCompare() {
		ok, err := holds(src, compare)
		if err != nil {
			return nil, err
		}
		if !ok {
			c.Succeeded = false
			break
		}
	}
	for _, op := range c.Branch(txn) {
		nested, ok := op.GetRequest().(*etcdserverpb.RequestOp_RequestTxn)
		if !ok {
			continue
		}
		choices, err := Choose(src, nested.RequestTxn)
		if err != nil {
			return nil, err
		}
		c.Nested = append(c.Nested, choices)
	}
	return c, nil
}

// holds tells whether a compare is true: for every key of its range, or for a
// missing key if there is none.
func holds(src Source, c *etcdserverpb.Compare) (bool, error) {
	lo, hi, single := Bounds(c.GetKey(), c.GetRangeEnd())
	if single {
		it, err := src.Get(lo)
		return err == nil && holdsFor(c, &it), err
	}
	found, all := false, true
	err := src.Ascend(lo, hi, 0, func(it *keyspace.Item) bool {
		found = true
		all = holdsFor(c, it)
		return all
	})
	if err == nil && !found {
		return holdsFor(c, &keyspace.Item{}), nil
	}
	return all, err
}

// holdsFor compares one key; a missing one has zeroes, and never a value.
func holdsFor(c *etcdserverpb.Compare, it *keyspace.Item) bool {
	var order int
	switch c.Target {
	case etcdserverpb.Compare_VALUE:
		if !it.Exists() {
			return false
		}
		order = bytes.Compare(it.Value, c.GetValue())
	case etcdserverpb.Compare_CREATE:
		order = cmp.Compare(it.Create, c.GetCreateRevision())
	case etcdserverpb.Compare_MOD:
		order = cmp.Compare(present(it, it.Mod), c.GetModRevision())
	case etcdserverpb.Compare_VERSION:
		order = cmp.Compare(it.Version, c.GetVersion())
	case etcdserverpb.Compare_LEASE:
		order = cmp.Compare(it.Lease, c.GetLease())
	}
	switch c.Result {
	case etcdserverpb.Compare_EQUAL:
		return order == 0
	case etcdserverpb.Compare_NOT_EQUAL:
		return order != 0
	case etcdserverpb.Compare_GREATER:
		return order > 0
	case etcdserverpb.Compare_LESS:
		return order < 0
	default:
		return true // as etcd: an unknown operator compares nothing
	}
}

// present hides what a deleted key's item still tells.
func present(it *keyspace.Item, v int64) int64 {
	if !it.Exists() {
		return 0
	}
	return v
}

package kv

import (
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/gatewayd/internal/watch/interval"
)

// checkOverlaps refuses a transaction in one branch of which a key would be put
// twice, or put and deleted. Deletes may overlap. Puts of a nested
// transaction's two branches may coincide, since one of them is not taken; both
// count against everything around it.
//
// As in etcd, the puts of a nested transaction are compared with the deletes of
// its parent and of the nested ones before it, not of those after it.
func checkOverlaps(r *etcdserverpb.TxnRequest) error {
	for _, branch := range [2][]*etcdserverpb.RequestOp{r.Success, r.Failure} {
		if !mayOverlap(branch) {
			continue
		}
		if _, err := changesOf(branch); err != nil {
			return err
		}
	}
	return nil
}

// mayOverlap spares the commonest transactions, of one operation, the work.
func mayOverlap(ops []*etcdserverpb.RequestOp) bool {
	return len(ops) > 1 || len(ops) == 1 && ops[0].GetRequestTxn() != nil
}

// changes are the keys that operations put and the spans that they delete.
type changes struct {
	puts    map[string]bool
	deletes []span
}

type span struct{ lo, hi string }

// changesOf collects what a branch may change, nested transactions included.
func changesOf(ops []*etcdserverpb.RequestOp) (changes, error) {
	c := changes{puts: make(map[string]bool)}
	var deleted interval.Tree[bool]
	remove := func(spans ...span) {
		for _, s := range spans {
			deleted.Set(s.lo, s.hi, true)
		}
		c.deletes = append(c.deletes, spans...)
	}
	// put refuses a key unless it was put by a branch that excludes this one.
	put := func(key string, excluded map[string]bool) error {
		hit := c.puts[key] && !excluded[key]
		deleted.Stab([]byte(key), func(bool) { hit = true })
		if hit {
			return rpctypes.ErrGRPCDuplicateKey
		}
		c.puts[key] = true
		return nil
	}

	for _, op := range ops {
		if del := op.GetRequestDeleteRange(); del != nil {
			remove(spanOf(del))
		}
	}
	for _, op := range ops {
		if nested := op.GetRequestTxn(); nested != nil {
			if err := nestedChanges(nested, put, remove); err != nil {
				return c, err
			}
		}
	}
	for _, op := range ops {
		if p := op.GetRequestPut(); p != nil {
			if err := put(string(p.Key), nil); err != nil {
				return c, err
			}
		}
	}
	return c, nil
}

func nestedChanges(r *etcdserverpb.TxnRequest, put func(string, map[string]bool) error, remove func(...span)) error {
	success, err := changesOf(r.Success)
	if err != nil {
		return err
	}
	failure, err := changesOf(r.Failure)
	if err != nil {
		return err
	}
	for key := range success.puts {
		if err := put(key, nil); err != nil {
			return err
		}
	}
	for key := range failure.puts {
		if err := put(key, success.puts); err != nil {
			return err
		}
	}
	remove(success.deletes...)
	remove(failure.deletes...)
	return nil
}

// spanOf is the half-open span that a delete covers. hi "" has no upper bound.
func spanOf(r *etcdserverpb.DeleteRangeRequest) span {
	lo, hi := string(r.Key), string(r.RangeEnd)
	switch hi {
	case "":
		return span{lo, lo + "\x00"}
	case "\x00":
		return span{lo, ""}
	}
	return span{lo, hi}
}

package apply

import (
	"bytes"
	"context"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/services/keyspace"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
)

// opOverheadBytes is what a kept operation's response costs.
const opOverheadBytes = 96

// txn is a transaction being applied.
type txn struct {
	m     *Machine
	src   mvcc.Source // the state before it
	bytes int         // what keeping its response costs
}

func (m *Machine) applyTxn(body []byte) (result, error) {
	var req etcdserverpb.TxnRequest
	if err := proto.Unmarshal(body, &req); err != nil {
		return refused(errMalformedBody)
	}
	t := txn{m: m, src: present{m}}
	choices, err := mvcc.Choose(t.src, &req)
	if err != nil {
		return result{}, err
	}
	// Everything that can be refused is refused before anything is gathered.
	if reason, err := t.check(&req, choices); err != nil || reason != nil {
		return result{refused: reason}, err
	}
	m.write.begin(true) // pending ranges keep parts of the list
	response, reason, err := t.gather(&req, choices)
	if err != nil || reason != nil {
		return result{refused: reason}, err
	}
	m.commit()
	return result{lazy: &lazyTxn{state: m.state, txnResponse: *response, bytes: t.bytes}}, nil
}

// check validates the operations of the chosen branches, in order.
func (t *txn) check(req *etcdserverpb.TxnRequest, c *mvcc.Choices) (reason, err error) {
	nested := c.Nested
	for _, op := range c.Branch(req) {
		switch r := op.GetRequest().(type) {
		case *etcdserverpb.RequestOp_RequestRange:
			if reason = mvcc.CheckRange(r.RequestRange); reason == nil {
				reason = mvcc.CheckRevision(r.RequestRange.Revision, t.m.meta.Revision, t.m.meta.Compact)
			}
		case *etcdserverpb.RequestOp_RequestPut:
			put := t.m.put.of(r.RequestPut)
			_, reason, err = t.m.checkPut(t.src, put)
		case *etcdserverpb.RequestOp_RequestDeleteRange:
			if len(r.RequestDeleteRange.Key) == 0 {
				reason = rpctypes.ErrGRPCEmptyKey
			}
		case *etcdserverpb.RequestOp_RequestTxn:
			reason, err = t.check(r.RequestTxn, nested[0])
			nested = nested[1:]
		}
		if reason != nil || err != nil {
			return reason, err
		}
	}
	return nil, nil
}

// gather runs the operations of the chosen branches. A key that is put where
// the transaction changed it before is refused: gateways do not let that
// through, and one key has one change in a revision.
func (t *txn) gather(req *etcdserverpb.TxnRequest, c *mvcc.Choices) (_ *txnResponse, reason, err error) {
	branch, nested := c.Branch(req), c.Nested
	response := &txnResponse{succeeded: c.Succeeded, ops: make([]opResponse, len(branch))}
	t.bytes += opOverheadBytes * (1 + len(branch))
	for i, op := range branch {
		o := &response.ops[i]
		switch r := op.GetRequest().(type) {
		case *etcdserverpb.RequestOp_RequestRange:
			o.kind = fieldOpRange
			err = t.gatherRange(o, r.RequestRange)
		case *etcdserverpb.RequestOp_RequestPut:
			o.kind = fieldOpPut
			reason, err = t.gatherPut(o, t.m.put.of(r.RequestPut))
		case *etcdserverpb.RequestOp_RequestDeleteRange:
			before := len(t.m.write.changes)
			if reason, err = t.gatherDelete(r.RequestDeleteRange); err == nil && reason == nil {
				*o = deleted(r.RequestDeleteRange, t.m.write.changes[before:])
				t.keep(o.prev)
			}
		case *etcdserverpb.RequestOp_RequestTxn:
			o.kind = fieldOpTxn
			o.txn, reason, err = t.gather(r.RequestTxn, nested[0])
			nested = nested[1:]
		}
		if reason != nil || err != nil {
			return nil, reason, err
		}
		o.revision = t.revision()
	}
	return response, nil, nil
}

// revision is the one that an inner header shows: the next one after the first
// write.
func (t *txn) revision() int64 {
	if len(t.m.write.changes) > 0 {
		return t.m.meta.Revision + 1
	}
	return t.m.meta.Revision
}

func (t *txn) keep(items []keyspace.Item) {
	for i := range items {
		t.bytes += len(items[i].Key) + len(items[i].Value) + opOverheadBytes
	}
}

func (t *txn) gatherPut(o *opResponse, put *putRequest) (reason, err error) {
	if _, changed := t.m.write.find(put.key); changed {
		return rpctypes.ErrGRPCDuplicateKey, nil
	}
	prev, err := t.src.Get(put.key)
	if err != nil {
		return nil, err
	}
	t.m.gatherPut(put, prev)
	if put.prevKV && prev.Exists() {
		o.prev = []keyspace.Item{prev}
		t.keep(o.prev)
	}
	return nil, nil
}

// gatherDelete deletes what is there after the transaction's earlier changes.
func (t *txn) gatherDelete(req *etcdserverpb.DeleteRangeRequest) (reason, err error) {
	w := &t.m.write
	before := len(w.changes)
	if before == 0 {
		return nil, t.m.gatherDelete(t.src, req)
	}
	lo, hi, single := mvcc.Bounds(req.Key, req.RangeEnd)
	for i := range w.changes {
		key, put := w.changes[i].key, w.changes[i].item.Exists()
		if put && (single && bytes.Equal(key, lo) || !single && mvcc.Within(key, lo, hi)) {
			return rpctypes.ErrGRPCDuplicateKey, nil
		}
	}
	over := overlaid{base: t.src, over: w.changes}
	return nil, t.m.gatherDelete(&over, req)
}

// gatherRange notes what a range is of. It is read later, unless it is of one
// key, which costs a look-up.
func (t *txn) gatherRange(o *opResponse, req *etcdserverpb.RangeRequest) error {
	changes := t.m.write.changes
	p := &pendingRange{req: req, revision: req.Revision}
	if req.Revision <= 0 {
		p.revision, p.over = t.m.meta.Revision, changes[:len(changes):len(changes)]
	}
	o.ranged = p
	t.bytes += proto.Size(req) + opOverheadBytes
	if len(req.RangeEnd) > 0 || req.Revision > 0 {
		return nil
	}
	var err error
	p.answer, err = mvcc.Range(&overlaid{base: t.src, over: p.over}, req, 0)
	if err == nil {
		t.keep(p.answer.Items)
	}
	return err
}

// evaluate reads the range, after the transaction was applied.
func (p *pendingRange) evaluate(ctx context.Context, state *mvcc.State) (*mvcc.Ranged, error) {
	r, err := mvcc.Range(&overlaid{base: state.At(ctx, p.revision), over: p.over}, p.req, 0)
	if err == nil {
		err = state.Intact(p.revision)
	}
	return r, err
}

// overlaid is a Source with a transaction's changes laid over it.
type overlaid struct {
	base   mvcc.Source
	over   []change
	sorted []keyspace.Item
}

// Get implements mvcc.Source.
func (s *overlaid) Get(key []byte) (keyspace.Item, error) {
	for i := range s.over {
		if bytes.Equal(s.over[i].key, key) {
			return s.over[i].item, nil
		}
	}
	return s.base.Get(key)
}

// Ascend implements mvcc.Source.
func (s *overlaid) Ascend(lo, hi []byte, want int, each func(*keyspace.Item) bool) error {
	over := s.sortedWithin(lo, hi)
	if len(over) == 0 {
		return s.base.Ascend(lo, hi, want, each)
	}
	base := func(each func(*keyspace.Item) bool) error { return s.base.Ascend(lo, hi, 0, each) }
	return mvcc.Overlay(base, over, each)
}

// Count implements mvcc.Source.
func (s *overlaid) Count(lo, hi []byte) (int64, error) {
	n, err := s.base.Count(lo, hi)
	for i := range s.over {
		c := &s.over[i]
		if !mvcc.Within(c.key, lo, hi) {
			continue
		}
		if c.item.Exists() {
			n++
		}
		if c.prev.Exists() {
			n--
		}
	}
	return n, err
}

func (s *overlaid) sortedWithin(lo, hi []byte) []keyspace.Item {
	if s.sorted == nil {
		s.sorted = make([]keyspace.Item, len(s.over))
		for i := range s.over {
			s.sorted[i] = s.over[i].item
			s.sorted[i].Key = s.over[i].key
		}
		slices.SortFunc(s.sorted, func(a, b keyspace.Item) int { return bytes.Compare(a.Key, b.Key) })
	}
	from, _ := slices.BinarySearchFunc(s.sorted, lo, func(it keyspace.Item, key []byte) int { return bytes.Compare(it.Key, key) })
	to := len(s.sorted)
	if hi != nil {
		to, _ = slices.BinarySearchFunc(s.sorted, hi, func(it keyspace.Item, key []byte) int { return bytes.Compare(it.Key, key) })
	}
	return s.sorted[from:max(from, to)]
}

// of fills the request from etcd's, for a put within a transaction.
func (r *putRequest) of(p *etcdserverpb.PutRequest) *putRequest {
	*r = putRequest{key: p.Key, value: p.Value, lease: p.Lease, prevKV: p.PrevKv, ignoreValue: p.IgnoreValue, ignoreLease: p.IgnoreLease}
	return r
}

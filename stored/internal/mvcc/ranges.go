package mvcc

import (
	"bytes"
	"cmp"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/services/keyspace"
	"github.com/quartet-kv/quartet/stored/internal/kv"
)

// Ranged is the answer to a range.
type Ranged struct {
	Items []keyspace.Item
	// KeysOnly: values are left out; NoLease: leases too.
	KeysOnly, NoLease bool
	More              bool
	Count             int64
	// Large: the items exceed the bytes that were allowed, and are not all
	// here.
	Large bool
}

// Numbers of etcdserverpb.RangeResponse's fields.
const (
	FieldKvs   = 2
	fieldMore  = 3
	fieldCount = 4
)

// Range answers a range from a Source, which stands at the asked revision. At
// most bytesMax bytes of key-values are gathered (0 is no bound); a range that
// is not in key order, or filtered, gathers all before it cuts.
func Range(src Source, req *etcdserverpb.RangeRequest, bytesMax int) (*Ranged, error) {
	if err := CheckRange(req); err != nil {
		return nil, err
	}
	lo, hi, single := Bounds(req.Key, req.RangeEnd)
	r := &Ranged{KeysOnly: req.KeysOnly, NoLease: req.SortTarget != etcdserverpb.RangeRequest_VALUE}
	switch {
	case single:
		it, err := src.Get(lo)
		if err != nil || !it.Exists() {
			return r, err
		}
		r.Count = 1
		if !req.CountOnly && passes(req, &it) {
			r.Items = []keyspace.Item{it}
			r.Large = bytesMax > 0 && r.size(&it) > bytesMax
		}
		return r, nil
	case req.CountOnly:
		n, err := src.Count(lo, hi)
		r.Count = n
		return r, err
	case InKeyOrder(req):
		return r, r.gather(src, lo, hi, int(req.Limit), bytesMax)
	default:
		return r, r.sort(src, req, lo, hi, bytesMax)
	}
}

// CheckRange refuses what etcd refuses before it looks at the state.
func CheckRange(req *etcdserverpb.RangeRequest) error {
	if len(req.Key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	if _, ok := etcdserverpb.RangeRequest_SortOrder_name[int32(req.SortOrder)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	if _, ok := etcdserverpb.RangeRequest_SortTarget_name[int32(req.SortTarget)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return nil
}

// InKeyOrder tells whether the answer is a prefix of the range as it stands: so
// that it can be streamed, and a limit ends the walk.
func InKeyOrder(req *etcdserverpb.RangeRequest) bool {
	return req.SortTarget == etcdserverpb.RangeRequest_KEY && req.SortOrder != etcdserverpb.RangeRequest_DESCEND && !filtered(req)
}

func filtered(req *etcdserverpb.RangeRequest) bool {
	return req.MinModRevision != 0 || req.MaxModRevision != 0 || req.MinCreateRevision != 0 || req.MaxCreateRevision != 0
}

func passes(req *etcdserverpb.RangeRequest, it *keyspace.Item) bool {
	return (req.MinModRevision == 0 || it.Mod >= req.MinModRevision) &&
		(req.MaxModRevision == 0 || it.Mod <= req.MaxModRevision) &&
		(req.MinCreateRevision == 0 || it.Create >= req.MinCreateRevision) &&
		(req.MaxCreateRevision == 0 || it.Create <= req.MaxCreateRevision)
}

// gather takes the first limit items and counts the rest.
func (r *Ranged) gather(src Source, lo, hi []byte, limit, bytesMax int) error {
	size, want := 0, 0
	if limit > 0 {
		want = limit + 1
	}
	err := src.Ascend(lo, hi, want, func(it *keyspace.Item) bool {
		if limit > 0 && len(r.Items) == limit {
			r.More = true
			return false
		}
		size += r.size(it)
		r.Large = bytesMax > 0 && size > bytesMax
		r.Items = append(r.Items, *it)
		return !r.Large
	})
	r.Count = int64(len(r.Items))
	if err == nil && r.More {
		r.Count, err = src.Count(lo, hi)
	}
	return err
}

// sort gathers the whole range, filters, sorts and cuts.
func (r *Ranged) sort(src Source, req *etcdserverpb.RangeRequest, lo, hi []byte, bytesMax int) error {
	err := src.Ascend(lo, hi, 0, func(it *keyspace.Item) bool {
		r.Count++
		if passes(req, it) {
			r.Items = append(r.Items, *it)
		}
		return true
	})
	if err != nil {
		return err
	}
	compare := comparer(req.SortTarget)
	switch {
	case req.SortOrder == etcdserverpb.RangeRequest_DESCEND:
		slices.SortFunc(r.Items, func(a, b keyspace.Item) int { return compare(&b, &a) })
	case req.SortTarget != etcdserverpb.RangeRequest_KEY:
		slices.SortFunc(r.Items, func(a, b keyspace.Item) int { return compare(&a, &b) })
	}
	if req.Limit > 0 && int64(len(r.Items)) > req.Limit {
		r.Items, r.More = r.Items[:req.Limit], true
	}
	size := 0
	for i := range r.Items {
		size += r.size(&r.Items[i])
	}
	r.Large = bytesMax > 0 && size > bytesMax
	return nil
}

func comparer(target etcdserverpb.RangeRequest_SortTarget) func(a, b *keyspace.Item) int {
	switch target {
	case etcdserverpb.RangeRequest_VERSION:
		return func(a, b *keyspace.Item) int { return cmp.Compare(a.Version, b.Version) }
	case etcdserverpb.RangeRequest_CREATE:
		return func(a, b *keyspace.Item) int { return cmp.Compare(a.Create, b.Create) }
	case etcdserverpb.RangeRequest_MOD:
		return func(a, b *keyspace.Item) int { return cmp.Compare(a.Mod, b.Mod) }
	case etcdserverpb.RangeRequest_VALUE:
		return func(a, b *keyspace.Item) int { return bytes.Compare(a.Value, b.Value) }
	default:
		return func(a, b *keyspace.Item) int { return bytes.Compare(a.Key, b.Key) }
	}
}

// shown is the item as the answer shows it.
func (r *Ranged) shown(it *keyspace.Item) keyspace.Item {
	shown := *it
	if r.KeysOnly {
		shown.Value = nil
		if r.NoLease {
			shown.Lease = 0
		}
	}
	return shown
}

func (r *Ranged) size(it *keyspace.Item) int {
	shown := r.shown(it)
	return kv.FieldSize(&shown)
}

// AppendItem appends one item as a RangeResponse's field.
func (r *Ranged) AppendItem(b []byte, it *keyspace.Item) []byte {
	shown := r.shown(it)
	return kv.AppendField(b, FieldKvs, &shown)
}

// AppendBody appends the encoded RangeResponse, without header.
func (r *Ranged) AppendBody(b []byte) []byte {
	size := 16
	for i := range r.Items {
		size += r.size(&r.Items[i])
	}
	b = slices.Grow(b, size)
	for i := range r.Items {
		b = r.AppendItem(b, &r.Items[i])
	}
	if r.More {
		b = kv.AppendInt(b, fieldMore, 1)
	}
	return kv.AppendInt(b, fieldCount, r.Count)
}

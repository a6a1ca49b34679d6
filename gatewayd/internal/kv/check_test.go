package kv

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

func put(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
}

func del(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func get(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func nest(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}

func ops(list ...*pb.RequestOp) []*pb.RequestOp { return list }

func repeat(op *pb.RequestOp, n int) []*pb.RequestOp {
	var list []*pb.RequestOp
	for range n {
		list = append(list, op)
	}
	return list
}

func compares(n int) []*pb.Compare {
	var list []*pb.Compare
	for range n {
		list = append(list, &pb.Compare{Key: []byte("k")})
	}
	return list
}

func TestChecksOfSingleRequests(t *testing.T) {
	key := []byte("k")
	for _, c := range []struct {
		name string
		got  error
		want error
	}{
		{"range", checkRange(&pb.RangeRequest{Key: key}), nil},
		{"range without key", checkRange(&pb.RangeRequest{RangeEnd: []byte{0}}), rpctypes.ErrGRPCEmptyKey},
		{"range with the last sort options", checkRange(&pb.RangeRequest{Key: key, SortOrder: pb.RangeRequest_DESCEND, SortTarget: pb.RangeRequest_VALUE}), nil},
		{"range with unknown order", checkRange(&pb.RangeRequest{Key: key, SortOrder: 3}), rpctypes.ErrGRPCInvalidSortOption},
		{"range with negative target", checkRange(&pb.RangeRequest{Key: key, SortTarget: -1}), rpctypes.ErrGRPCInvalidSortOption},
		{"range with unknown target and no key", checkRange(&pb.RangeRequest{SortTarget: 9}), rpctypes.ErrGRPCEmptyKey},
		{"range with odd limit and revision", checkRange(&pb.RangeRequest{Key: key, Limit: -1, Revision: -5}), nil},
		{"put", checkPut(&pb.PutRequest{Key: key}), nil},
		{"put without key", checkPut(&pb.PutRequest{IgnoreValue: true, Value: key}), rpctypes.ErrGRPCEmptyKey},
		{"put with value to ignore", checkPut(&pb.PutRequest{Key: key, Value: key, IgnoreValue: true, IgnoreLease: true, Lease: 1}), rpctypes.ErrGRPCValueProvided},
		{"put with lease to ignore", checkPut(&pb.PutRequest{Key: key, IgnoreLease: true, Lease: -1}), rpctypes.ErrGRPCLeaseProvided},
		{"put ignoring both", checkPut(&pb.PutRequest{Key: key, IgnoreLease: true, IgnoreValue: true}), nil},
		{"delete", checkDelete(&pb.DeleteRangeRequest{Key: key}), nil},
		{"delete without key", checkDelete(&pb.DeleteRangeRequest{RangeEnd: []byte{0}}), rpctypes.ErrGRPCEmptyKey},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
}

func TestRangeStreamIsInKeyOrderAndUnfiltered(t *testing.T) {
	key := []byte("k")
	for _, r := range []*pb.RangeRequest{
		{Key: key, SortOrder: pb.RangeRequest_DESCEND},
		{Key: key, SortTarget: pb.RangeRequest_MOD},
		{Key: key, MinModRevision: 1}, {Key: key, MaxModRevision: 1}, {Key: key, MinCreateRevision: 1}, {Key: key, MaxCreateRevision: 1},
	} {
		if err := checkRangeStream(r); status.Code(err) != codes.Unimplemented {
			t.Errorf("%v: %v", r, err)
		}
	}
	for _, r := range []*pb.RangeRequest{{Key: key}, {Key: key, SortOrder: pb.RangeRequest_ASCEND}, {Key: key, CountOnly: true, KeysOnly: true, Limit: 3, Revision: 2}} {
		if err := checkRangeStream(r); err != nil {
			t.Errorf("%v: %v", r, err)
		}
	}
	if err := checkRangeStream(&pb.RangeRequest{SortTarget: pb.RangeRequest_MOD}); !errors.Is(err, rpctypes.ErrGRPCEmptyKey) {
		t.Errorf("without key: %v", err)
	}
}

func TestChecksOfTransactions(t *testing.T) {
	const opsMax = 4
	for _, c := range []struct {
		name string
		txn  *pb.TxnRequest
		want error
	}{
		{"empty", &pb.TxnRequest{}, nil},
		{"as many as may be", &pb.TxnRequest{Compare: compares(4), Success: repeat(get(&pb.RangeRequest{Key: []byte("k")}), 4), Failure: repeat(get(&pb.RangeRequest{Key: []byte("k")}), 4)}, nil},
		{"too many compares", &pb.TxnRequest{Compare: compares(5)}, rpctypes.ErrGRPCTooManyOps},
		{"too many in success", &pb.TxnRequest{Success: repeat(put("k"), 5)}, rpctypes.ErrGRPCTooManyOps},
		{"too many in failure", &pb.TxnRequest{Failure: repeat(put("k"), 5)}, rpctypes.ErrGRPCTooManyOps},
		{"too many before empty key", &pb.TxnRequest{Compare: []*pb.Compare{{}, {}, {}, {}, {}}}, rpctypes.ErrGRPCTooManyOps},
		{"compare without key", &pb.TxnRequest{Compare: []*pb.Compare{{RangeEnd: []byte{0}}}}, rpctypes.ErrGRPCEmptyKey},
		{"nested with what is left", &pb.TxnRequest{Success: ops(put("a"), nest(&pb.TxnRequest{Success: ops(put("b"), put("c"))}))}, nil},
		{"nested beyond what is left", &pb.TxnRequest{Success: ops(put("a"), nest(&pb.TxnRequest{Success: ops(put("b"), put("c"), put("d"))}))}, rpctypes.ErrGRPCTooManyOps},
		{"what is left counts the widest branch", &pb.TxnRequest{Compare: compares(3), Success: ops(nest(&pb.TxnRequest{Success: ops(put("b"), put("c"))}))}, rpctypes.ErrGRPCTooManyOps},
		{"nested twice", &pb.TxnRequest{Success: ops(nest(&pb.TxnRequest{Failure: ops(nest(&pb.TxnRequest{Success: ops(put("b"), put("c"), put("d"))}))}))}, rpctypes.ErrGRPCTooManyOps},
		{"put without key in the branch not taken", &pb.TxnRequest{Failure: ops(put(""))}, rpctypes.ErrGRPCEmptyKey},
		{"range with bad sort", &pb.TxnRequest{Success: ops(get(&pb.RangeRequest{Key: []byte("k"), SortOrder: 7}))}, rpctypes.ErrGRPCInvalidSortOption},
		{"delete without key in a nested branch", &pb.TxnRequest{Success: ops(nest(&pb.TxnRequest{Failure: ops(del("", "\x00"))}))}, rpctypes.ErrGRPCEmptyKey},
		{"operation without content", &pb.TxnRequest{Success: ops(&pb.RequestOp{})}, rpctypes.ErrGRPCKeyNotFound},
		{"success is looked at first", &pb.TxnRequest{Success: ops(&pb.RequestOp{}), Failure: ops(put(""))}, rpctypes.ErrGRPCKeyNotFound},
	} {
		if err := checkTxn(c.txn, opsMax); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestOverlapsInTransactions(t *testing.T) {
	both := func(a, b []*pb.RequestOp) *pb.RequestOp { return nest(&pb.TxnRequest{Success: a, Failure: b}) }
	for _, c := range []struct {
		name    string
		ops     []*pb.RequestOp
		refused bool
	}{
		{"one put", ops(put("a")), false},
		{"two keys", ops(put("a"), put("b")), false},
		{"one key twice", ops(put("a"), put("b"), put("a")), true},
		{"put and delete", ops(put("a"), del("a", "")), true},
		{"delete and put", ops(del("a", ""), put("a")), true},
		{"put in a deleted range", ops(put("b"), del("a", "c")), true},
		{"put at a range's end", ops(put("c"), del("a", "c")), false},
		{"put below a range", ops(put("a"), del("b", "c")), false},
		{"put beside a point", ops(put("a\x00"), del("a", "")), false},
		{"put above an open range's begin", ops(put("b"), del("a", "\x00")), true},
		{"deletes may overlap", ops(del("a", "c"), del("b", "d"), del("a", "c"), put("e")), false},
		{"inverted range deletes nothing", ops(del("c", "a"), put("b")), false},
		{"gets do not count", ops(get(&pb.RangeRequest{Key: []byte("a")}), put("a"), get(&pb.RangeRequest{Key: []byte("a")})), false},
		{"both branches of one nested", ops(both(ops(put("a")), ops(put("a")))), false},
		{"twice in one nested branch", ops(both(ops(put("a"), put("a")), nil)), true},
		{"nested and parent", ops(both(ops(put("a")), nil), put("a")), true},
		{"parent and nested failure", ops(put("a"), both(nil, ops(put("a")))), true},
		{"two nested", ops(both(ops(put("a")), nil), both(nil, ops(put("a")))), true},
		{"nested put in the parent's delete", ops(both(ops(put("b")), nil), del("a", "c")), true},
		{"nested delete around the parent's put", ops(both(nil, ops(del("a", "c"))), put("b")), true},
		{"nested delete before a nested put", ops(both(ops(del("a", "c")), nil), both(ops(put("b")), nil)), true},
		{"nested delete after a nested put", ops(both(ops(put("b")), nil), both(ops(del("a", "c")), nil)), false},
		{"delete and put in the two branches of one nested", ops(both(ops(del("a", "")), ops(put("a")))), false},
		{"deep", ops(both(ops(both(nil, ops(put("a")))), nil), put("a")), true},
	} {
		for branch, txn := range map[string]*pb.TxnRequest{"success": {Success: c.ops}, "failure": {Failure: c.ops}} {
			err := checkOverlaps(txn)
			if (err != nil) != c.refused || c.refused && !errors.Is(err, rpctypes.ErrGRPCDuplicateKey) {
				t.Errorf("%s in %s: %v", c.name, branch, err)
			}
		}
	}
	if err := checkOverlaps(&pb.TxnRequest{Success: ops(put("a")), Failure: ops(put("a"))}); err != nil {
		t.Errorf("the two branches exclude each other: %v", err)
	}
}

func TestKindOfTransaction(t *testing.T) {
	linear, local := get(&pb.RangeRequest{Key: []byte("k")}), get(&pb.RangeRequest{Key: []byte("k"), Serializable: true})
	for _, c := range []struct {
		name                   string
		txn                    *pb.TxnRequest
		readOnly, serializable bool
	}{
		{"empty", &pb.TxnRequest{}, true, true},
		{"compares only", &pb.TxnRequest{Compare: compares(1)}, true, true},
		{"serializable ranges", &pb.TxnRequest{Success: ops(local), Failure: ops(local)}, true, true},
		{"one that is not", &pb.TxnRequest{Success: ops(local), Failure: ops(linear)}, true, false},
		{"put", &pb.TxnRequest{Failure: ops(put("a"))}, false, false},
		{"nested ranges", &pb.TxnRequest{Success: ops(nest(&pb.TxnRequest{Success: ops(local)}))}, false, false},
	} {
		readOnly, serializable := kindOfTxn(c.txn)
		if readOnly != c.readOnly || serializable != c.serializable {
			t.Errorf("%s: read-only %v, serializable %v", c.name, readOnly, serializable)
		}
	}
}

package acceptance

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	equal    = pb.Compare_EQUAL
	greater  = pb.Compare_GREATER
	less     = pb.Compare_LESS
	notEqual = pb.Compare_NOT_EQUAL
)

func (s *scene) ifVersion(name string, result pb.Compare_CompareResult, v int64) *pb.Compare {
	return &pb.Compare{Key: s.k(name), Result: result, Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: v}}
}

func (s *scene) ifValue(name string, result pb.Compare_CompareResult, v string) *pb.Compare {
	return &pb.Compare{Key: s.k(name), Result: result, Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte(v)}}
}

func (s *scene) ifMod(name string, result pb.Compare_CompareResult, rev int64) *pb.Compare {
	return &pb.Compare{Key: s.k(name), Result: result, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}
}

func (s *scene) ifCreate(name string, result pb.Compare_CompareResult, rev int64) *pb.Compare {
	return &pb.Compare{Key: s.k(name), Result: result, Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: rev}}
}

func (s *scene) ifLease(name string, result pb.Compare_CompareResult, id int64) *pb.Compare {
	return &pb.Compare{Key: s.k(name), Result: result, Target: pb.Compare_LEASE, TargetUnion: &pb.Compare_Lease{Lease: id}}
}

func upTo(c *pb.Compare, end []byte) *pb.Compare {
	c.RangeEnd = end
	return c
}

func TestTxnCompares(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		lease := s.grant(600)
		s.must(s.put("a", "m"), s.put("a", "m"), s.put("b", "n"),
			&pb.PutRequest{Key: s.k("c"), Value: []byte("o"), Lease: lease}, s.put("gone", "1"), s.del("gone"))
		tests := []struct {
			name     string
			compares []*pb.Compare
			want     bool
		}{
			{"none", nil, true},
			{"version", []*pb.Compare{s.ifVersion("a", equal, 2)}, true},
			{"version of missing is 0", []*pb.Compare{s.ifVersion("x", equal, 0)}, true},
			{"version of deleted is 0", []*pb.Compare{s.ifVersion("gone", equal, 0)}, true},
			{"version of missing is below 1", []*pb.Compare{s.ifVersion("x", less, 1)}, true},
			{"create of missing", []*pb.Compare{s.ifCreate("x", equal, 0)}, true},
			{"create", []*pb.Compare{s.ifCreate("a", equal, s.base+1)}, true},
			{"mod", []*pb.Compare{s.ifMod("a", equal, s.base+2)}, true},
			{"mod greater", []*pb.Compare{s.ifMod("a", greater, s.base+1)}, true},
			{"mod less", []*pb.Compare{s.ifMod("a", less, s.base+2)}, false},
			{"mod not equal", []*pb.Compare{s.ifMod("a", notEqual, s.base)}, true},
			{"lease", []*pb.Compare{s.ifLease("c", equal, lease)}, true},
			{"lease of a key without", []*pb.Compare{s.ifLease("a", equal, 0)}, true},
			{"lease of missing", []*pb.Compare{s.ifLease("x", equal, 0)}, true},
			{"value", []*pb.Compare{s.ifValue("a", equal, "m")}, true},
			{"value greater", []*pb.Compare{s.ifValue("a", greater, "lzzz")}, true},
			{"value is compared as bytes", []*pb.Compare{s.ifValue("a", greater, "M")}, true},
			{"value of missing equals nothing", []*pb.Compare{s.ifValue("x", equal, "")}, false},
			{"value of missing differs from nothing", []*pb.Compare{s.ifValue("x", notEqual, "m")}, false},
			{"value of missing is less than nothing", []*pb.Compare{s.ifValue("x", less, "m")}, false},
			{"union not set is 0", []*pb.Compare{{Key: s.k("x"), Target: pb.Compare_MOD}}, true},
			{"union not set is not the mod revision", []*pb.Compare{{Key: s.k("a"), Target: pb.Compare_MOD}}, false},
			{"value not set is empty", []*pb.Compare{{Key: s.k("a"), Target: pb.Compare_VALUE, Result: greater}}, true},
			{"all must hold", []*pb.Compare{s.ifVersion("a", equal, 2), s.ifVersion("b", equal, 2)}, false},
			{"range: every key", []*pb.Compare{upTo(s.ifMod("a", greater, s.base), s.k("d"))}, true},
			{"range: not every key", []*pb.Compare{upTo(s.ifVersion("a", equal, 1), s.k("d"))}, false},
			{"range: value of every key", []*pb.Compare{upTo(s.ifValue("a", greater, "l"), s.k("d"))}, true},
			{"empty range is a missing key", []*pb.Compare{upTo(s.ifVersion("x", equal, 0), s.k("z"))}, true},
			{"empty range is a missing key: value", []*pb.Compare{upTo(s.ifValue("x", notEqual, "1"), s.k("z"))}, false},
			{"empty range is a missing key: mod", []*pb.Compare{upTo(s.ifMod("x", greater, 0), s.k("z"))}, false},
			{"range skips deleted keys", []*pb.Compare{upTo(s.ifVersion("b", equal, 1), s.k("h"))}, true},
		}
		for _, tt := range tests {
			want := "+6 else {}"
			if tt.want {
				want = "+6 then {}"
			}
			s.want(tt.name, &pb.TxnRequest{Compare: tt.compares}, want)
		}
	})
}

func TestTxnBranches(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		s.must(s.put("a", "1"))
		never := []*pb.Compare{s.ifVersion("a", equal, 99)}
		steps := []struct {
			name string
			req  *pb.TxnRequest
			want string
		}{
			{"only the chosen branch", &pb.TxnRequest{Compare: never, Success: ops(s.put("b", "1")), Failure: ops(s.put("c", "1"))},
				"+2 else {put +2}"},
			{"reads before and after a write", &pb.TxnRequest{Success: ops(s.get("a"), s.put("a", "2"), s.get("a"), s.del("c"), s.get("c"))},
				"+3 then {range +2 [a=1(+1,+1,v1)] count 1; put +3; range +3 [a=2(+1,+3,v2)] count 1; delete +3 deleted 1; range +3 [] count 0}"},
			{"prev_kv inside", &pb.TxnRequest{Success: ops(
				&pb.PutRequest{Key: s.k("a"), Value: []byte("3"), PrevKv: true},
				&pb.DeleteRangeRequest{Key: s.k("b"), RangeEnd: s.k("d"), PrevKv: true})},
				"+4 then {put +4 prev a=2(+1,+3,v2); delete +4 deleted 0}"},
			{"deletes may overlap", &pb.TxnRequest{Success: ops(s.del("a"), s.delRange("a", "z"))},
				"+5 then {delete +5 deleted 1; delete +5 deleted 0}"},
			{"range of an old revision", &pb.TxnRequest{Success: ops(&pb.RangeRequest{Key: s.k("a"), Revision: s.base + 1}, s.put("a", "4"))},
				"+6 then {range +5 [a=1(+1,+1,v1)] count 1; put +6}"},
			{"limit, sort and count inside", &pb.TxnRequest{Success: ops(s.put("b", "5"), s.put("c", "6"),
				&pb.RangeRequest{Key: s.k("a"), RangeEnd: s.k("z"), Limit: 1, SortOrder: pb.RangeRequest_DESCEND},
				&pb.RangeRequest{Key: s.k("a"), RangeEnd: s.k("z"), CountOnly: true})},
				"+7 then {put +7; put +7; range +7 [c=6(+7,+7,v1)] count 3 more; range +7 [] count 3}"},
			{"ignore_value inside", &pb.TxnRequest{Success: ops(&pb.PutRequest{Key: s.k("a"), IgnoreValue: true})}, "+8 then {put +8}"},
		}
		for _, step := range steps {
			s.want(step.name, step.req, step.want)
		}
		s.want("in the end", s.all(), "+8 [a=4(+6,+8,v2) b=5(+7,+7,v1) c=6(+7,+7,v1)] count 3")
	})
}

func TestTxnNested(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		s.must(s.put("a", "1"))
		s.want("compares see the state before the txn, ranges the writes so far", &pb.TxnRequest{Success: ops(
			s.put("a", "2"),
			&pb.TxnRequest{
				Compare: []*pb.Compare{s.ifValue("a", equal, "1")},
				Success: ops(s.get("a"), s.put("b", "1")),
				Failure: ops(s.put("c", "1")),
			},
			s.get("b"),
		)}, "+2 then {put +2; txn 0 then {range +2 [a=2(+1,+2,v2)] count 1; put +2}; range +2 [b=1(+2,+2,v1)] count 1}")
		s.want("a nested txn of reads takes no revision", &pb.TxnRequest{Success: ops(&pb.TxnRequest{Success: ops(s.get("b"))})},
			"+2 then {txn 0 then {range +2 [b=1(+2,+2,v1)] count 1}}")
		deep := &pb.TxnRequest{Success: ops(s.put("d", "1"))}
		for range 5 {
			deep = &pb.TxnRequest{Success: ops(deep)}
		}
		s.want("six deep", deep, "+3 then {txn 0 then {txn 0 then {txn 0 then {txn 0 then {txn 0 then {put +3}}}}}}")
	})
}

func TestTxnValidation(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		s.must(s.put("a", "1"))
		many := func(n int) []any {
			var list []any
			for i := range n {
				list = append(list, s.put(fmt.Sprintf("many/%d", i), "1"))
			}
			return list
		}
		var compares []*pb.Compare
		for range 129 {
			compares = append(compares, s.ifVersion("a", equal, 1))
		}
		never := []*pb.Compare{s.ifVersion("a", equal, 99)}
		nest := func(inner ...any) any { return &pb.TxnRequest{Success: ops(inner...)} }
		then := func(reqs ...any) *pb.TxnRequest { return &pb.TxnRequest{Success: ops(reqs...)} }
		tests := []struct {
			name string
			req  *pb.TxnRequest
			want string
		}{
			{"129 operations", then(many(129)...), errTooManyOps},
			{"129 operations in the other branch", &pb.TxnRequest{Failure: ops(many(129)...)}, errTooManyOps},
			{"129 compares", &pb.TxnRequest{Compare: compares}, errTooManyOps},
			{"nested: more than what the parent leaves", then(append(many(100), nest(many(40)...))...), errTooManyOps},
			{"compare without a key", &pb.TxnRequest{Compare: []*pb.Compare{{}}}, errEmptyKey},
			{"put without a key", then(&pb.PutRequest{}), errEmptyKey},
			{"range without a key", then(&pb.RangeRequest{}), errEmptyKey},
			{"delete without a key", then(&pb.DeleteRangeRequest{}), errEmptyKey},
			{"nested put without a key", then(nest(&pb.PutRequest{})), errEmptyKey},
			{"the branch not taken is validated", &pb.TxnRequest{Compare: never, Success: ops(&pb.PutRequest{})}, errEmptyKey},
			{"operation not set", then(nil), errKeyNotFound},
			{"ignore_value with a value", then(&pb.PutRequest{Key: s.k("a"), Value: []byte("1"), IgnoreValue: true}),
				"error InvalidArgument: etcdserver: value is provided"},
			{"two puts of a key", then(s.put("k", "1"), s.put("k", "2")), errDuplicateKey},
			{"put, then delete of it", then(s.put("k", "1"), s.del("k")), errDuplicateKey},
			{"delete, then put of it", then(s.del("k"), s.put("k", "1")), errDuplicateKey},
			{"put within a deleted range", then(s.delRange("a", "z"), s.put("k", "1")), errDuplicateKey},
			{"in the branch not taken", &pb.TxnRequest{Compare: never, Success: ops(s.put("k", "1"), s.put("k", "2"))}, errDuplicateKey},
			{"nested put of the parent's put", then(s.put("k", "1"), nest(s.put("k", "2"))), errDuplicateKey},
			{"nested put within the parent's delete", then(s.delRange("a", "z"), nest(s.put("k", "2"))), errDuplicateKey},
			{"puts of two nested txns", then(nest(s.put("k", "1")), nest(s.put("k", "2"))), errDuplicateKey},
			{"unknown lease", then(s.put("k", "1"), &pb.PutRequest{Key: s.k("l"), Lease: noLease}), errLeaseNotFound},
			{"ignore_value of a missing key", then(s.put("k", "1"), &pb.PutRequest{Key: s.k("l"), IgnoreValue: true}), errKeyNotFound},
			{"nothing was written", then(s.all()), "+1 then {range +1 [a=1(+1,+1,v1)] count 1}"},
		}
		for _, tt := range tests {
			s.want(tt.name, tt.req, tt.want)
		}
		if !tg.has(badRangeInTxnSplitsMembers) {
			s.want("range of a future revision", then(s.put("k", "1"), &pb.RangeRequest{Key: s.k("a"), Revision: s.base + 9}), errFutureRev)
		}
		s.want("unknown lease in the branch not taken", &pb.TxnRequest{Compare: never, Success: ops(&pb.PutRequest{Key: s.k("l"), Lease: noLease})},
			"+1 else {}")
		s.want("the same put in both branches of a nested txn", then(&pb.TxnRequest{
			Compare: never, Success: ops(s.put("k", "1")), Failure: ops(s.put("k", "2"))}), "+2 then {txn 0 else {put +2}}")
		s.want("128 operations", &pb.TxnRequest{Success: ops(many(128)...), Compare: never}, "+2 else {}")
	})
}

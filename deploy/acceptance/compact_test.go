package acceptance

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestCompactionKeepsWhatItsRevisionShows(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		s.must(s.put("a", "1"), s.put("a", "2"), s.put("b", "1"), s.del("b"), s.put("c", "1"), s.put("a", "3"))
		at := func(name string, rev int64) *pb.RangeRequest {
			return &pb.RangeRequest{Key: s.k(name), Revision: s.base + rev}
		}
		s.want("compact", &pb.CompactionRequest{Revision: s.base + 5, Physical: true}, "+6")
		s.want("again", &pb.CompactionRequest{Revision: s.base + 5}, errCompacted)
		s.want("older", &pb.CompactionRequest{Revision: s.base + 2}, errCompacted)
		s.want("future", &pb.CompactionRequest{Revision: s.base + 7}, errFutureRev)
		s.want("a at the compact revision", at("a", 5), "+6 [a=2(+1,+2,v2)] count 1")
		s.want("b at the compact revision", at("b", 5), "+6 [] count 0")
		s.want("c at the compact revision", at("c", 5), "+6 [c=1(+5,+5,v1)] count 1")
		s.want("count at the compact revision", &pb.RangeRequest{Key: s.k(""), RangeEnd: s.end(), Revision: s.base + 5, CountOnly: true}, "+6 [] count 2")
		s.want("below", at("a", 4), errCompacted)
		s.want("below, serializable", &pb.RangeRequest{Key: s.k("a"), Revision: s.base + 4, Serializable: true}, errCompacted)
		s.want("below, counted", &pb.RangeRequest{Key: s.k("a"), Revision: s.base + 1, CountOnly: true}, errCompacted)
		s.want("below, in a txn that reads", &pb.TxnRequest{Success: ops(at("a", 4))}, errCompacted)
		if !tg.has(badRangeInTxnSplitsMembers) {
			s.want("below, in a txn that writes", &pb.TxnRequest{Success: ops(s.put("d", "1"), at("a", 4))}, errCompacted)
		}
		s.want("now", s.all(), "+6 [a=3(+1,+6,v3) c=1(+5,+5,v1)] count 2")
		s.want("compact at the current revision", &pb.CompactionRequest{Revision: s.base + 6}, "+6")
		s.want("still readable", at("a", 6), "+6 [a=3(+1,+6,v3)] count 1")
		s.must(s.put("a", "4"))
		s.want("create revision and version are kept", s.get("a"), "+7 [a=4(+1,+7,v4)] count 1")
		s.want("the version before stays readable", at("a", 6), "+7 [a=3(+1,+6,v3)] count 1")
	})
}

func TestCompactedTombstonesBeginNewGenerations(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		s.must(s.put("a", "1"), s.del("a"), s.put("b", "1"))
		s.must(&pb.CompactionRequest{Revision: s.base + 3, Physical: true})
		s.want("delete of nothing", s.del("a"), "+3 deleted 0")
		s.must(s.put("a", "2"))
		s.want("a new generation", s.get("a"), "+4 [a=2(+4,+4,v1)] count 1")
		s.want("absent at the compact revision", &pb.RangeRequest{Key: s.k("a"), Revision: s.base + 3}, "+4 [] count 0")
	})
}

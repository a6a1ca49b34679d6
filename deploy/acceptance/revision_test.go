package acceptance

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/deploy/harness"
)

func TestFreshStoreBeginsAtRevisionOne(t *testing.T) {
	onFresh(t, harness.Options{Members: 1}, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		if s.base != 1 {
			t.Fatalf("revision of an empty store: %d, want 1", s.base)
		}
		s.base = 0 // the revisions below are absolute
		s.want("future compaction", &pb.CompactionRequest{Revision: 2}, "error OutOfRange: etcdserver: mvcc: required revision is a future revision")
		s.want("compact(0), once", &pb.CompactionRequest{}, "+1")
		s.want("compact(0), again", &pb.CompactionRequest{}, "error OutOfRange: etcdserver: mvcc: required revision has been compacted")
		s.want("first put", s.put("a", "1"), "+2")
		s.want("read", s.get("a"), "+2 [a=1(+2,+2,v1)] count 1")
		s.want("compact(2)", &pb.CompactionRequest{Revision: 2, Physical: true}, "+2")
		s.want("compact(2), again", &pb.CompactionRequest{Revision: 2}, "error OutOfRange: etcdserver: mvcc: required revision has been compacted")
		s.want("compact(-1)", &pb.CompactionRequest{Revision: -1}, "error OutOfRange: etcdserver: mvcc: required revision has been compacted")
		s.want("compact(3)", &pb.CompactionRequest{Revision: 3}, "error OutOfRange: etcdserver: mvcc: required revision is a future revision")
	})
}

func TestOneRevisionPerWrite(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		lease := s.grant(600)
		empty := s.grant(600)
		steps := []struct {
			name string
			req  any
			want string
		}{
			{"put", s.put("a", "1"), "+1"},
			{"put of the same value", s.put("a", "1"), "+2"},
			{"put of an empty value", s.put("e", ""), "+3"},
			{"delete", s.del("a"), "+4 deleted 1"},
			{"delete of nothing", s.del("a"), "+4 deleted 0"},
			{"delete of an inverted range", s.delRange("z", "a"), "+4 deleted 0"},
			{"txn of two puts and a delete", &pb.TxnRequest{Success: ops(s.put("a", "2"), s.put("b", "2"), s.del("e"))},
				"+5 then {put +5; put +5; delete +5 deleted 1}"},
			{"txn without operations", &pb.TxnRequest{}, "+5 then {}"},
			{"txn that only reads", &pb.TxnRequest{Success: ops(s.get("a"))}, "+5 then {range +5 [a=2(+5,+5,v1)] count 1}"},
			{"txn that deletes nothing", &pb.TxnRequest{Success: ops(s.del("none"))}, "+5 then {delete +5 deleted 0}"},
			{"delete of two keys", s.delRange("a", "c"), "+6 deleted 2"},
			{"put with a lease", &pb.PutRequest{Key: s.k("l1"), Lease: lease}, "+7"},
			{"put with a lease", &pb.PutRequest{Key: s.k("l2"), Lease: lease}, "+8"},
			{"grant", &pb.LeaseGrantRequest{TTL: 600}, "+8 ttl 600"},
			{"revoke without keys", &pb.LeaseRevokeRequest{ID: empty}, "+8"},
			{"revoke of two keys", &pb.LeaseRevokeRequest{ID: lease}, "+9"},
			{"compaction", &pb.CompactionRequest{Revision: s.base + 2}, "+9"},
			{"next put", s.put("a", "3"), "+10"},
		}
		for _, step := range steps {
			s.want(step.name, step.req, step.want)
		}
	})
}

func TestGenerationsCountVersions(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		s.must(s.put("a", "1"), s.put("a", "2"))
		s.want("second version", s.get("a"), "+2 [a=2(+1,+2,v2)] count 1")
		s.must(s.del("a"))
		s.want("deleted", s.get("a"), "+3 [] count 0")
		s.must(s.put("a", "3"), s.put("b", "1"), s.put("a", "4"))
		s.want("second generation", s.get("a"), "+6 [a=4(+4,+6,v2)] count 1")
		s.want("history", &pb.RangeRequest{Key: s.k("a"), Revision: s.base + 2}, "+6 [a=2(+1,+2,v2)] count 1")
		s.want("history between generations", &pb.RangeRequest{Key: s.k("a"), Revision: s.base + 3}, "+6 [] count 0")
		s.want("history at another key's revision", &pb.RangeRequest{Key: s.k("a"), Revision: s.base + 5}, "+6 [a=3(+4,+4,v1)] count 1")
	})
}

func TestHeadersNameClusterMemberAndTerm(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		put, err := s.kv.Put(s.ctx, s.put("a", "1"))
		if err != nil {
			t.Fatal(err)
		}
		get, err := s.kv.Range(s.ctx, s.get("a"))
		if err != nil {
			t.Fatal(err)
		}
		list, err := pb.NewClusterClient(tg.conn).MemberList(s.ctx, &pb.MemberListRequest{Linearizable: true})
		if err != nil {
			t.Fatal(err)
		}
		status, err := pb.NewMaintenanceClient(tg.conn).Status(s.ctx, &pb.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for name, h := range map[string]*pb.ResponseHeader{"put": put.Header, "range": get.Header, "member list": list.Header, "status": status.Header} {
			if h.ClusterId != put.Header.ClusterId || h.ClusterId == 0 || h.MemberId != put.Header.MemberId || h.MemberId == 0 || h.RaftTerm == 0 {
				t.Errorf("header of %s: %v, header of put: %v", name, h, put.Header)
			}
		}
		if list.Header.Revision != 0 {
			t.Errorf("member list: header revision %d, want 0", list.Header.Revision)
		}
		if status.Header.Revision != put.Header.Revision {
			t.Errorf("status: header revision %d, want %d", status.Header.Revision, put.Header.Revision)
		}
		txn, err := s.kv.Txn(s.ctx, &pb.TxnRequest{Success: ops(s.put("b", "1"), &pb.TxnRequest{Success: ops(s.get("a"))})})
		if err != nil {
			t.Fatal(err)
		}
		inner := txn.Responses[0].GetResponsePut().Header
		if inner.GetRevision() != txn.Header.Revision || inner.GetClusterId() != 0 || inner.GetMemberId() != 0 || inner.GetRaftTerm() != 0 {
			t.Errorf("header inside a txn: %v, want only the revision %d", inner, txn.Header.Revision)
		}
		if nested := txn.Responses[1].GetResponseTxn().Header; nested == nil || nested.Revision != 0 {
			t.Errorf("header of a nested txn: %v, want one that is there and empty", nested)
		}
	})
}

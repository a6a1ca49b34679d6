package acceptance

import (
	"errors"
	"fmt"
	"io"
	"math"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// grant grants a lease and returns its id.
func (s *scene) grant(ttl int64) int64 {
	s.t.Helper()
	resp, err := s.lease.LeaseGrant(s.ctx, &pb.LeaseGrantRequest{TTL: ttl})
	if err != nil {
		s.t.Fatalf("grant: %v", err)
	}
	if resp.ID <= 0 {
		s.t.Fatalf("grant: id %d, want a positive one", resp.ID)
	}
	return resp.ID
}

// leaseID is an id that this target has not seen: the suite may run twice on it.
func (s *scene) leaseID(n int64) int64 { return s.base<<16 + n }

func TestLeaseGrant(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		const tooLarge = "error OutOfRange: etcdserver: too large lease TTL"
		tests := []struct {
			name string
			req  *pb.LeaseGrantRequest
			want string
		}{
			{"ttl", &pb.LeaseGrantRequest{TTL: 600}, "+0 ttl 600"},
			{"ttl below the minimum", &pb.LeaseGrantRequest{TTL: 1}, "+0 ttl 2"},
			{"ttl 0", &pb.LeaseGrantRequest{}, "+0 ttl 2"},
			{"negative ttl", &pb.LeaseGrantRequest{TTL: -5}, "+0 ttl 2"},
			{"largest ttl", &pb.LeaseGrantRequest{TTL: 9000000000}, "+0 ttl 9000000000"},
			{"too large", &pb.LeaseGrantRequest{TTL: 9000000001}, tooLarge},
			{"far too large", &pb.LeaseGrantRequest{TTL: math.MaxInt64}, tooLarge},
			{"own id", &pb.LeaseGrantRequest{TTL: 600, ID: s.leaseID(1)}, "+0 ttl 600"},
			{"own id again", &pb.LeaseGrantRequest{TTL: 600, ID: s.leaseID(1)}, "error FailedPrecondition: etcdserver: lease already exists"},
			{"negative id", &pb.LeaseGrantRequest{TTL: 600, ID: -s.leaseID(2)}, "+0 ttl 600"},
		}
		for _, tt := range tests {
			s.want(tt.name, tt.req, tt.want)
		}
		s.want("revoke of the negative id", &pb.LeaseRevokeRequest{ID: -s.leaseID(2)}, "+0")
		s.must(&pb.LeaseRevokeRequest{ID: s.leaseID(1)})
		s.want("a revoked id may be granted again", &pb.LeaseGrantRequest{TTL: 600, ID: s.leaseID(1)}, "+0 ttl 600")
	})
}

func TestLeaseKeysAndRevoke(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		one, two := s.grant(600), s.grant(600)
		with := func(name string, id int64) *pb.PutRequest { return &pb.PutRequest{Key: s.k(name), Lease: id} }
		keys := func(id int64) string {
			resp, err := s.lease.LeaseTimeToLive(s.ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
			if err != nil {
				t.Fatal(err)
			}
			if resp.TTL < 590 || resp.TTL > 600 || resp.GrantedTTL != 600 {
				t.Errorf("ttl %d of %d", resp.TTL, resp.GrantedTTL)
			}
			set := map[string]bool{}
			for _, k := range resp.Keys {
				set[s.key(k)] = true
			}
			return fmt.Sprint(set)
		}
		s.must(with("b", one), with("a", one), with("c", one), with("d", one), with("e", one))
		s.must(with("c", two), s.put("d", ""), s.del("e"))
		if got := keys(one); got != "map[a:true b:true]" {
			t.Errorf("keys of the first: %s", got)
		}
		if got := keys(two); got != "map[c:true]" {
			t.Errorf("keys of the second: %s", got)
		}
		quiet, err := s.lease.LeaseTimeToLive(s.ctx, &pb.LeaseTimeToLiveRequest{ID: one})
		if err != nil || len(quiet.Keys) != 0 {
			t.Errorf("keys that were not asked for: %v, %v", quiet, err)
		}
		w := s.watching(s.allWatched())
		s.want("revoke", &pb.LeaseRevokeRequest{ID: one}, "+9")
		w.want("both keys in one revision, in key order", "id 0 +9 [DELETE a=(0,+9,v0); DELETE b=(0,+9,v0)]")
		s.want("revoke again", &pb.LeaseRevokeRequest{ID: one}, errLeaseNotFound)
		s.want("time to live of unknown", &pb.LeaseTimeToLiveRequest{ID: one, Keys: true}, "+9 ttl -1 granted 0 keys []")
		s.want("put with it", with("a", one), errLeaseNotFound)
		s.want("the others stay", &pb.RangeRequest{Key: s.k(""), RangeEnd: s.end(), CountOnly: true}, "+9 [] count 2")
		s.must(s.del("c"))
		s.want("revoke without keys takes no revision", &pb.LeaseRevokeRequest{ID: two}, "+10")
		w.want("delete", "id 0 +10 [DELETE c=(0,+10,v0)]")
		w.wantQuiet("no event for it")
		three := s.grant(600)
		s.must(&pb.TxnRequest{Success: ops(with("t1", three), with("t2", three))}, &pb.DeleteRangeRequest{Key: s.k("t1")})
		if got := keys(three); got != "map[t2:true]" {
			t.Errorf("keys attached in a txn: %s", got)
		}
	})
}

func TestLeasesAreListedSoonestFirst(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		later, soon, last := s.grant(500), s.grant(400), s.grant(5000)
		if !tg.Kind().Quartet() { // only etcd's leader knows when leases expire
			s.lease = pb.NewLeaseClient(s.leaderConn())
		}
		resp, err := s.lease.LeaseLeases(s.ctx, &pb.LeaseLeasesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		for _, l := range resp.Leases {
			if l.ID == later || l.ID == soon || l.ID == last {
				got = append(got, l.ID)
			}
		}
		if want := []int64{soon, later, last}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("leases %v, want %v", got, want)
		}
	})
}

func TestLeaseKeepAlive(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		one, two := s.grant(600), s.grant(700)
		stream, err := s.lease.LeaseKeepAlive(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		asked := []int64{one, two, noLease, one, one, noLease + 1, two}
		ttl := map[int64]int64{one: 600, two: 700} // unknown: 0, and no error
		for _, id := range asked {
			if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		for i, id := range asked {
			resp, err := stream.Recv()
			if err != nil {
				t.Fatalf("answer %d: %v", i, err)
			}
			if resp.ID != id || resp.TTL != ttl[id] || resp.Header.GetRevision() != s.base {
				t.Errorf("answer %d: %v, want id %d ttl %d", i, resp, id, ttl[id])
			}
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("after half-close: %v, want the end of the stream", err)
		}
	})
}

// TestLeaseExpiry: a lease lives at least its TTL, longer while it is kept
// alive, and takes its keys with it in one revision.
func TestLeaseExpiry(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		w := s.watching(&pb.WatchCreateRequest{Key: s.k("short/"), RangeEnd: s.k("short0")})
		granted := time.Now()
		short, kept := s.grant(2), s.grant(2)
		s.must(&pb.PutRequest{Key: s.k("short/b"), Lease: short}, &pb.PutRequest{Key: s.k("short/a"), Lease: short},
			&pb.PutRequest{Key: s.k("kept"), Lease: kept})
		w.wantEvents("puts", []string{"PUT short/b=(+1,+1,v1,lease)", "PUT short/a=(+2,+2,v1,lease)"})

		stream, err := s.lease.LeaseKeepAlive(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		beat := time.NewTicker(500 * time.Millisecond)
		defer beat.Stop()
		var expired *pb.WatchResponse
		for expired == nil {
			select {
			case expired = <-w.responses:
			case <-beat.C:
				if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: kept}); err != nil {
					t.Fatal(err)
				}
				if resp, err := stream.Recv(); err != nil || resp.TTL != 2 {
					t.Fatalf("keep-alive: %v, %v", resp, err)
				}
			case <-time.After(responseWithin):
				t.Fatal("the lease did not expire")
			}
		}
		if age := time.Since(granted); age < 2*time.Second {
			t.Errorf("expired after %v, before its 2 s", age)
		}
		if got := s.showWatch(expired); got != "id 0 +4 [DELETE short/a=(0,+4,v0); DELETE short/b=(0,+4,v0)]" {
			t.Errorf("expiry: %s", got)
		}
		s.want("kept", s.get("kept"), "+4 [kept=(+3,+3,v1,lease)] count 1")
		s.want("time to live of expired", &pb.LeaseTimeToLiveRequest{ID: short}, "+4 ttl -1 granted 0 keys []")
		s.want("revoke of expired", &pb.LeaseRevokeRequest{ID: short}, errLeaseNotFound)
		s.must(&pb.LeaseRevokeRequest{ID: kept})
	})
}

package acceptance

import (
	"bytes"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	errEmptyKey      = "error InvalidArgument: etcdserver: key is not provided"
	errKeyNotFound   = "error InvalidArgument: etcdserver: key not found"
	errDuplicateKey  = "error InvalidArgument: etcdserver: duplicate key given in txn request"
	errTooManyOps    = "error InvalidArgument: etcdserver: too many operations in txn request"
	errTooLarge      = "error InvalidArgument: etcdserver: request is too large"
	errLeaseNotFound = "error NotFound: etcdserver: requested lease not found"
	errFutureRev     = "error OutOfRange: etcdserver: mvcc: required revision is a future revision"
	errCompacted     = "error OutOfRange: etcdserver: mvcc: required revision has been compacted"
)

// noLease is a lease id that nobody granted.
const noLease = 0x5eed

func TestPut(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		lease := s.grant(600)
		a := func(change func(*pb.PutRequest)) *pb.PutRequest {
			r := &pb.PutRequest{Key: s.k("a")}
			change(r)
			return r
		}
		s.want("empty key", &pb.PutRequest{Value: []byte("1")}, errEmptyKey)
		s.want("ignore_value with a value", a(func(r *pb.PutRequest) { r.Value, r.IgnoreValue = []byte("1"), true }),
			"error InvalidArgument: etcdserver: value is provided")
		s.want("ignore_lease with a lease", a(func(r *pb.PutRequest) { r.Lease, r.IgnoreLease = lease, true }),
			"error InvalidArgument: etcdserver: lease is provided")
		s.want("ignore_value of a missing key", a(func(r *pb.PutRequest) { r.IgnoreValue = true }), errKeyNotFound)
		s.want("ignore_lease of a missing key", a(func(r *pb.PutRequest) { r.IgnoreLease = true }), errKeyNotFound)
		s.want("unknown lease", a(func(r *pb.PutRequest) { r.Lease = noLease }), errLeaseNotFound)
		s.want("nothing was written", s.all(), "+0 [] count 0")

		s.want("first, with prev_kv", a(func(r *pb.PutRequest) { r.Value, r.PrevKv = []byte("1"), true }), "+1")
		s.want("second, with prev_kv", a(func(r *pb.PutRequest) { r.Value, r.PrevKv, r.Lease = []byte("2"), true, lease }),
			"+2 prev a=1(+1,+1,v1)")
		s.want("ignore_value keeps the value, and detaches", a(func(r *pb.PutRequest) { r.IgnoreValue, r.PrevKv = true, true }),
			"+3 prev a=2(+1,+2,v2,lease)")
		s.want("read", s.get("a"), "+3 [a=2(+1,+3,v3)] count 1")
		s.must(a(func(r *pb.PutRequest) { r.Lease = lease }))
		s.want("empty value", s.get("a"), "+4 [a=(+1,+4,v4,lease)] count 1")
		s.want("ignore_lease keeps the lease", a(func(r *pb.PutRequest) { r.Value, r.IgnoreLease = []byte("5"), true }), "+5")
		s.want("read", s.get("a"), "+5 [a=5(+1,+5,v5,lease)] count 1")
		s.want("both are kept", a(func(r *pb.PutRequest) { r.IgnoreValue, r.IgnoreLease = true, true }), "+6")
		s.want("read", s.get("a"), "+6 [a=5(+1,+6,v6,lease)] count 1")
		s.want("lease 0 detaches", a(func(r *pb.PutRequest) { r.Value = []byte("7") }), "+7")
		s.want("revoke of the old lease", &pb.LeaseRevokeRequest{ID: lease}, "+7")
		s.want("the key stays", s.get("a"), "+7 [a=7(+1,+7,v7)] count 1")
	})
}

func TestPutOfAnyBytes(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		for _, name := range []string{"\x00", "\x00\x00", "\xff", string(every), "a\x00", "a"} {
			s.must(s.put(name, string(every)))
			got, err := s.kv.Range(s.ctx, s.get(name))
			if err != nil || len(got.Kvs) != 1 || !bytes.Equal(got.Kvs[0].Value, every) {
				t.Errorf("key %q: %v, %v", name, got, err)
			}
		}
		got, err := s.kv.Range(s.ctx, &pb.RangeRequest{Key: s.k(""), RangeEnd: []byte(s.prefix + "\xff\xff"), KeysOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"\x00", "\x00\x00", string(every), "a", "a\x00", "\xff"} {
			if i >= len(got.Kvs) || s.key(got.Kvs[i].Key) != want {
				t.Fatalf("keys in order: %v, want %q at %d", got.Kvs, want, i)
			}
		}
	})
}

func TestDeleteRange(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		s.must(s.put("a", "1"), s.put("b", "2"), s.put("c", "3"), s.put("d", "4"))
		s.want("empty key", &pb.DeleteRangeRequest{RangeEnd: []byte{0}}, errEmptyKey)
		s.want("missing key", &pb.DeleteRangeRequest{Key: s.k("x"), PrevKv: true}, "+4 deleted 0")
		s.want("one", &pb.DeleteRangeRequest{Key: s.k("a")}, "+5 deleted 1")
		s.want("range with prev_kv, in key order", &pb.DeleteRangeRequest{Key: s.k("a"), RangeEnd: s.k("d"), PrevKv: true},
			"+6 deleted 2 prev [b=2(+2,+2,v1) c=3(+3,+3,v1)]")
		s.want("inverted", s.delRange("z", "a"), "+6 deleted 0")
		s.want("rest", s.all(), "+6 [d=4(+4,+4,v1)] count 1")
		s.must(s.put("a", "5"))
		s.want("a new generation", s.get("a"), "+7 [a=5(+7,+7,v1)] count 1")
	})
}

func TestRequestSizeLimit(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		const limit = 1536 << 10 // --max-request-bytes
		s.want("well below the limit", &pb.PutRequest{Key: s.k("a"), Value: make([]byte, limit-512)}, "+1")
		s.want("above the limit", &pb.PutRequest{Key: s.k("a"), Value: make([]byte, limit)}, errTooLarge)
		s.want("txn above the limit", &pb.TxnRequest{Success: ops(
			&pb.PutRequest{Key: s.k("a"), Value: make([]byte, limit/2)}, &pb.PutRequest{Key: s.k("b"), Value: make([]byte, limit/2)})}, errTooLarge)
		s.want("nothing was written", &pb.RangeRequest{Key: s.k(""), RangeEnd: s.end(), CountOnly: true}, "+1 [] count 1")
		s.want("the largest value is read", s.get("a"), "+1 [a=<1572352 bytes>(+1,+1,v1)] count 1")
		_, err := s.kv.Put(s.ctx, &pb.PutRequest{Key: s.k("a"), Value: make([]byte, limit+512<<10+1024)})
		const tooLarge = "error ResourceExhausted: grpc: received message larger than max ("
		if err == nil || len(showError(err)) < len(tooLarge) || showError(err)[:len(tooLarge)] != tooLarge {
			t.Errorf("above the message limit: %v, want %q", err, tooLarge)
		}
	})
}

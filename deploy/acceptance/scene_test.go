package acceptance

import (
	"context"
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// scene is one test's view of a target: a prefix of its own, and a base
// revision, so that answers read the same on every cluster.
type scene struct {
	t      *testing.T
	tg     *target
	ctx    context.Context
	prefix string
	base   int64

	kv    pb.KVClient
	lease pb.LeaseClient
	watch pb.WatchClient
}

func newScene(t *testing.T, tg *target) *scene {
	t.Helper()
	s := &scene{
		t: t, tg: tg, ctx: testContext(t),
		prefix: fmt.Sprintf("%s/%d/", t.Name(), tg.scenes.Add(1)), // -count repeats names
		kv:     pb.NewKVClient(tg.conn),
		lease:  pb.NewLeaseClient(tg.conn),
		watch:  pb.NewWatchClient(tg.conn),
	}
	s.rebase()
	return s
}

// rebase makes the current revision +0.
func (s *scene) rebase() { s.base = s.revision() }

// revision is the current revision.
func (s *scene) revision() int64 {
	s.t.Helper()
	resp, err := s.kv.Range(s.ctx, &pb.RangeRequest{Key: s.k(""), CountOnly: true})
	if err != nil {
		s.t.Fatalf("current revision: %v", err)
	}
	return resp.Header.Revision
}

// leaderConn is a raw connection to the leader, for the duration of the test.
func (s *scene) leaderConn() *grpc.ClientConn {
	s.t.Helper()
	_, endpoint, err := s.tg.Leader(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	conn, err := dial(endpoint)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// k is a key of the scene; the end of a range of them is k too.
func (s *scene) k(name string) []byte { return []byte(s.prefix + name) }

// end is the range end of all keys of the scene.
func (s *scene) end() []byte { return []byte(s.prefix[:len(s.prefix)-1] + "0") }

// all is the range of all keys of the scene.
func (s *scene) all() *pb.RangeRequest { return &pb.RangeRequest{Key: s.k(""), RangeEnd: s.end()} }

func (s *scene) put(name, value string) *pb.PutRequest {
	return &pb.PutRequest{Key: s.k(name), Value: []byte(value)}
}

func (s *scene) get(name string) *pb.RangeRequest { return &pb.RangeRequest{Key: s.k(name)} }

func (s *scene) del(name string) *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: s.k(name)}
}

func (s *scene) delRange(from, to string) *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: s.k(from), RangeEnd: s.k(to)}
}

// op makes a transaction's operation of a request.
func op(req any) *pb.RequestOp {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
	case *pb.PutRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
	case *pb.DeleteRangeRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
	case *pb.TxnRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
	case nil:
		return &pb.RequestOp{}
	default:
		panic(fmt.Sprintf("op of %T", req))
	}
}

func ops(reqs ...any) []*pb.RequestOp {
	var list []*pb.RequestOp
	for _, r := range reqs {
		list = append(list, op(r))
	}
	return list
}

// do sends a request over the raw connection and shows the answer.
func (s *scene) do(req any) string {
	var resp any
	var err error
	switch r := req.(type) {
	case *pb.RangeRequest:
		resp, err = s.kv.Range(s.ctx, r)
	case *pb.PutRequest:
		resp, err = s.kv.Put(s.ctx, r)
	case *pb.DeleteRangeRequest:
		resp, err = s.kv.DeleteRange(s.ctx, r)
	case *pb.TxnRequest:
		resp, err = s.kv.Txn(s.ctx, r)
	case *pb.CompactionRequest:
		resp, err = s.kv.Compact(s.ctx, r)
	case *pb.LeaseGrantRequest:
		resp, err = s.lease.LeaseGrant(s.ctx, r)
	case *pb.LeaseRevokeRequest:
		resp, err = s.lease.LeaseRevoke(s.ctx, r)
	case *pb.LeaseTimeToLiveRequest:
		resp, err = s.lease.LeaseTimeToLive(s.ctx, r)
	default:
		panic(fmt.Sprintf("do %T", req))
	}
	if err != nil {
		return showError(err)
	}
	return s.show(resp)
}

// must sends requests that have to succeed.
func (s *scene) must(reqs ...any) {
	s.t.Helper()
	for _, r := range reqs {
		if got := s.do(r); strings.HasPrefix(got, "error ") {
			s.t.Fatalf("%T: %s", r, got)
		}
	}
}

// want sends a request and compares the shown answer.
func (s *scene) want(name string, req any, want string) {
	s.t.Helper()
	if got := s.do(req); got != want {
		s.t.Errorf("%s:\n got %s\nwant %s", name, got, want)
	}
}

// showError is "error <code>: <text>", as it stands on the wire.
func showError(err error) string {
	st := status.Convert(err)
	return fmt.Sprintf("error %v: %s", st.Code(), st.Message())
}

// rev shows a revision relative to the base; 0 stays 0.
func (s *scene) rev(r int64) string {
	if r == 0 {
		return "0"
	}
	return fmt.Sprintf("%+d", r-s.base)
}

// key shows a key without the scene's prefix.
func (s *scene) key(k []byte) string { return strings.TrimPrefix(string(k), s.prefix) }

// showKV is key=value(create,mod,vVersion), with ",lease" if there is one.
func (s *scene) showKV(kv *mvccpb.KeyValue) string {
	if kv == nil {
		return "-"
	}
	value := string(kv.Value)
	if len(value) > 40 {
		value = fmt.Sprintf("<%d bytes>", len(value))
	}
	lease := ""
	if kv.Lease != 0 {
		lease = ",lease"
	}
	return fmt.Sprintf("%s=%s(%s,%s,v%d%s)", s.key(kv.Key), value, s.rev(kv.CreateRevision), s.rev(kv.ModRevision), kv.Version, lease)
}

func (s *scene) showKVs(kvs []*mvccpb.KeyValue) string {
	var list []string
	for _, kv := range kvs {
		list = append(list, s.showKV(kv))
	}
	return "[" + strings.Join(list, " ") + "]"
}

// show is the text of an answer that the tables hold: its header's revision
// first, then whatever is not zero.
func (s *scene) show(resp any) string {
	switch r := resp.(type) {
	case *pb.RangeResponse:
		more := ""
		if r.More {
			more = " more"
		}
		return fmt.Sprintf("%s %s count %d%s", s.header(r.Header), s.showKVs(r.Kvs), r.Count, more)
	case *pb.PutResponse:
		if r.PrevKv != nil {
			return fmt.Sprintf("%s prev %s", s.header(r.Header), s.showKV(r.PrevKv))
		}
		return s.header(r.Header)
	case *pb.DeleteRangeResponse:
		text := fmt.Sprintf("%s deleted %d", s.header(r.Header), r.Deleted)
		if len(r.PrevKvs) > 0 {
			text += " prev " + s.showKVs(r.PrevKvs)
		}
		return text
	case *pb.TxnResponse:
		return s.showTxn(r)
	case *pb.CompactionResponse:
		return s.header(r.Header)
	case *pb.LeaseGrantResponse:
		return fmt.Sprintf("%s ttl %d%s", s.header(r.Header), r.TTL, r.Error)
	case *pb.LeaseRevokeResponse:
		return s.header(r.Header)
	case *pb.LeaseTimeToLiveResponse:
		var keys []string
		for _, k := range r.Keys {
			keys = append(keys, s.key(k))
		}
		return fmt.Sprintf("%s ttl %d granted %d keys %v", s.header(r.Header), r.TTL, r.GrantedTTL, keys)
	default:
		panic(fmt.Sprintf("show %T", resp))
	}
}

func (s *scene) header(h *pb.ResponseHeader) string {
	if h == nil {
		return "no header"
	}
	return s.rev(h.Revision)
}

func (s *scene) showTxn(r *pb.TxnResponse) string {
	branch := "else"
	if r.Succeeded {
		branch = "then"
	}
	var list []string
	for _, o := range r.Responses {
		switch o := o.Response.(type) {
		case *pb.ResponseOp_ResponseRange:
			list = append(list, "range "+s.show(o.ResponseRange))
		case *pb.ResponseOp_ResponsePut:
			list = append(list, "put "+s.show(o.ResponsePut))
		case *pb.ResponseOp_ResponseDeleteRange:
			list = append(list, "delete "+s.show(o.ResponseDeleteRange))
		case *pb.ResponseOp_ResponseTxn:
			list = append(list, "txn "+s.show(o.ResponseTxn))
		default:
			list = append(list, fmt.Sprintf("%T", o))
		}
	}
	return fmt.Sprintf("%s %s {%s}", s.header(r.Header), branch, strings.Join(list, "; "))
}

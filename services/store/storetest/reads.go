package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
)

func isEnd(err error) bool { return errors.Is(err, io.EOF) }

func readWaitsForItsPosition(t *testing.T, f *fixture) {
	f.session.Put("k", "1")
	f.log.Hold(true)
	f.session.Propose(Put("k", "2"))
	stream := must(f.store.Client.Read(f.ctx))(t)
	body := marshal(t, &etcdserverpb.RangeRequest{Key: []byte("k")})
	send := func(id, index uint64, revision int64) {
		b := &storepb.ReadBatch{Epoch: Epoch, MinIndex: index, MinRevision: revision, Reads: []*storepb.ReadRequest{{Id: id, Kind: storepb.ReadRequest_RANGE, Body: body}}}
		if err := stream.Send(b); err != nil {
			t.Fatal(err)
		}
	}
	send(1, uint64(f.log.Last().Index), 0) // waits for the index
	send(2, 0, 3)                          // waits for the revision
	send(3, 0, 0)                          // waits for nothing
	first := must(stream.Recv())(t)
	if first.Results[0].Id != 3 || first.Results[0].Revision != 2 {
		t.Fatalf("answered %v before what the log holds back", first)
	}
	f.log.Hold(false)
	for range 2 {
		r := must(stream.Recv())(t).Results[0]
		var response etcdserverpb.RangeResponse
		if err := proto.Unmarshal(r.Body, &response); err != nil || string(response.Kvs[0].Value) != "2" {
			t.Errorf("read %d answered %v, %v", r.Id, &response, err)
		}
	}
}

func readAnswersEachKind(t *testing.T, f *fixture) {
	s := f.session
	s.Put("a", "1")
	s.Put("b", "2")
	s.Put("a", "3")
	response, result := f.rangeOf(&etcdserverpb.RangeRequest{Key: []byte("a"), Revision: 2})
	if string(response.Kvs[0].Value) != "1" || result.Revision != 4 {
		t.Errorf("at revision 2: %v, store at %d", response, result.Revision)
	}
	if _, result := f.rangeOf(&etcdserverpb.RangeRequest{Key: []byte("a"), Revision: 9}); result.Error != futureText {
		t.Errorf("future revision: %q", result.Error)
	}
	txn := f.read(storepb.ReadRequest_TXN, &etcdserverpb.TxnRequest{
		Compare: []*etcdserverpb.Compare{{Key: []byte("a"), Target: etcdserverpb.Compare_VERSION, TargetUnion: &etcdserverpb.Compare_Version{Version: 2}}},
		Success: []*etcdserverpb.RequestOp{{Request: &etcdserverpb.RequestOp_RequestRange{RequestRange: &etcdserverpb.RangeRequest{Key: []byte("b")}}}},
	})
	var answer etcdserverpb.TxnResponse
	if err := proto.Unmarshal(txn.Body, &answer); err != nil || txn.Error != "" {
		t.Fatal(err, txn.Error)
	}
	if r := answer.Responses[0].GetResponseRange(); !answer.Succeeded || r.Header.Revision != 4 || string(r.Kvs[0].Value) != "2" {
		t.Errorf("txn answered %v", &answer)
	}
	s.Do(Command(logpb.Command_LEASE_GRANT, &etcdserverpb.LeaseGrantRequest{ID: 9, TTL: 30}))
	s.Do(Command(logpb.Command_PUT, &etcdserverpb.PutRequest{Key: []byte("b"), Lease: 9}))
	for id, want := range map[int64]string{9: "0 30 [b]", 10: "-1 0 []"} {
		var lease etcdserverpb.LeaseTimeToLiveResponse
		if err := proto.Unmarshal(f.read(storepb.ReadRequest_LEASE, &etcdserverpb.LeaseTimeToLiveRequest{ID: id, Keys: true}).Body, &lease); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%d %d %s", lease.TTL, lease.GrantedTTL, lease.Keys); got != want {
			t.Errorf("lease %d: %s, want %s", id, got, want)
		}
	}
}

// load puts n keys of about 1 kB each.
func (f *fixture) load(n int) {
	value := strings.Repeat("v", 1000)
	commands := make([]*logpb.Command, n)
	for i := range n {
		commands[i] = Put(fmt.Sprintf("key-%05d", i), value)
	}
	f.session.Propose(commands...)
	for range n {
		if o := f.session.Outcome(); o.Error != "" {
			f.t.Fatal(o.Error)
		}
	}
}

func largeAnswersAreAskedOfScan(t *testing.T, f *fixture) {
	f.load(2000)
	all := &etcdserverpb.RangeRequest{Key: []byte("key"), RangeEnd: []byte("kez")}
	if _, result := f.rangeOf(all); !result.Large || len(result.Body) > 0 || result.Error != "" {
		t.Errorf("2 MB in one answer: large=%t body=%d error=%q", result.Large, len(result.Body), result.Error)
	}
	response, chunks, err := f.scan(&storepb.ScanRequest{ChunkBytes: 100 << 10, FirstKeys: 10}, all)
	if err != nil {
		t.Fatal(err)
	}
	if len(response.Kvs) != 2000 || response.Count != 2000 || response.More || chunks < 20 {
		t.Errorf("scan of 2000 keys: %d keys, count %d, more %t, %d chunks", len(response.Kvs), response.Count, response.More, chunks)
	}
}

func scanIsOfOneRevision(t *testing.T, f *fixture) {
	f.load(1500)
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	req := &storepb.ScanRequest{Epoch: Epoch, MinIndex: uint64(f.log.Last().Index), ChunkBytes: 4 << 10, Range: marshal(t, &etcdserverpb.RangeRequest{Key: []byte("key"), RangeEnd: []byte("kez")})}
	stream := must(f.store.Client.Scan(ctx, req))(t)
	first := must(stream.Recv())(t)
	// The receiver is slow; meanwhile everything changes.
	f.session.Do(Delete("key-01000", "key-01200"))
	f.session.Put("key-01300", "changed")
	f.session.Put("key-01400x", "new")
	body := first.Kvs
	for last := first.Last; !last; {
		c := must(stream.Recv())(t)
		body, last = append(body, c.Kvs...), c.Last
		if c.Revision != first.Revision {
			t.Errorf("chunk of revision %d after %d", c.Revision, first.Revision)
		}
		if last && c.Count != 1500 {
			t.Errorf("count %d", c.Count)
		}
	}
	var response etcdserverpb.RangeResponse
	if err := proto.Unmarshal(body, &response); err != nil {
		t.Fatal(err)
	}
	if len(response.Kvs) != 1500 {
		t.Errorf("%d keys", len(response.Kvs))
	}
	for _, kv := range response.Kvs {
		if kv.ModRevision > first.Revision || len(kv.Value) != 1000 {
			t.Errorf("key %s of revision %d in a scan of %d", kv.Key, kv.ModRevision, first.Revision)
		}
	}
}

func scanLimitsAndCounts(t *testing.T, f *fixture) {
	f.load(300)
	revision := f.session.Put("key-00000", "x")
	r := &etcdserverpb.RangeRequest{Key: []byte("key-00100"), RangeEnd: []byte{0}, Limit: 50, KeysOnly: true}
	response, _, err := f.scan(&storepb.ScanRequest{}, r)
	if err != nil {
		t.Fatal(err)
	}
	if len(response.Kvs) != 50 || !response.More || response.Count != 200 || len(response.Kvs[0].Value) > 0 {
		t.Errorf("limit 50 of 200: %d keys, more %t, count %d", len(response.Kvs), response.More, response.Count)
	}
	r = &etcdserverpb.RangeRequest{Key: []byte("key"), RangeEnd: []byte{0}, SortTarget: etcdserverpb.RangeRequest_MOD, SortOrder: etcdserverpb.RangeRequest_DESCEND, Limit: 2}
	response, _, err = f.scan(&storepb.ScanRequest{}, r)
	if err != nil || len(response.Kvs) != 2 || response.Kvs[0].ModRevision != revision || !response.More || response.Count != 300 {
		t.Errorf("the two that changed last: %v, %v", response, err)
	}
	_, _, err = f.scan(&storepb.ScanRequest{}, &etcdserverpb.RangeRequest{Key: []byte("k"), Revision: revision + 1})
	isError(t, "future scan", err, rpctypes.ErrGRPCFutureRev)
}

func historyTellsEveryEvent(t *testing.T, f *fixture) {
	s := f.session
	s.Put("a", "1")
	s.Put("z", "1")
	s.Put("a", "2")
	s.Do(Delete("a", ""))
	s.Do(Command(logpb.Command_TXN, &etcdserverpb.TxnRequest{Success: []*etcdserverpb.RequestOp{
		{Request: &etcdserverpb.RequestOp_RequestPut{RequestPut: &etcdserverpb.PutRequest{Key: []byte("c"), Value: []byte("3")}}},
		{Request: &etcdserverpb.RequestOp_RequestPut{RequestPut: &etcdserverpb.PutRequest{Key: []byte("a"), Value: []byte("4")}}},
	}}))
	got, err := f.history(&storepb.HistoryRequest{Key: []byte("a"), RangeEnd: []byte("d"), From: 2, To: 6, PrevKv: true, MinRevision: 6})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "history", got, []string{"2 put a=1", "4 put a=2 was 1@2", "5 del a= was 2@4", "6 put c=3", "6 put a=4"})
	got, err = f.history(&storepb.HistoryRequest{Key: []byte("z"), From: 4, To: 6, MinRevision: 6})
	if err != nil || len(got) != 0 {
		t.Errorf("history of what did not change: %q, %v", got, err)
	}
}

func historyShowsDeleteAtCompactRevision(t *testing.T, f *fixture) {
	s := f.session
	s.Put("a", "1")       // 2
	s.Put("b", "1")       // 3
	s.Do(Delete("a", "")) // 4
	s.Do(Delete("b", "")) // 5
	s.Put("a", "2")       // 6
	f.compact(5)
	f.waitCompacted(5)
	got, err := f.history(&storepb.HistoryRequest{Key: []byte{0}, RangeEnd: []byte{0}, From: 5, To: 6, PrevKv: true, MinRevision: 6})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "history from the compact revision", got, []string{"5 del b=", "6 put a=2"})
	_, err = f.history(&storepb.HistoryRequest{Key: []byte("a"), From: 4})
	isError(t, "history from below", err, rpctypes.ErrGRPCCompacted)
}

func compactedIsSaid(t *testing.T, f *fixture) {
	for i := range 10 {
		f.session.Put("k", fmt.Sprint(i)) // 2 to 11
	}
	f.session.Put("other", "1") // 12
	f.compact(8)
	if _, result := f.rangeOf(&etcdserverpb.RangeRequest{Key: []byte("k"), Revision: 7}); result.Error != compactedText {
		t.Errorf("below the compact revision: %q", result.Error)
	}
	before := must(f.store.Client.Hash(f.ctx, &storepb.HashRequest{Revision: 9}))(t)
	f.waitCompacted(8)
	for revision, want := range map[int64]string{8: "6", 9: "7", 12: "9"} {
		response, _ := f.rangeOf(&etcdserverpb.RangeRequest{Key: []byte("k"), Revision: revision})
		if response.Count != 1 || string(response.Kvs[0].Value) != want {
			t.Errorf("at %d: %v, want %s", revision, response, want)
		}
	}
	after := must(f.store.Client.Hash(f.ctx, &storepb.HashRequest{Revision: 9}))(t)
	if before.Hash != after.Hash || after.CompactRevision != 8 || after.HashRevision != 9 {
		t.Errorf("hash %v before the purge, %v after it", before, after)
	}
	_, err := f.store.Client.Hash(f.ctx, &storepb.HashRequest{Revision: 7})
	isError(t, "hash below", err, rpctypes.ErrGRPCCompacted)
	_, _, err = f.scan(&storepb.ScanRequest{}, &etcdserverpb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Revision: 7})
	isError(t, "scan below", err, rpctypes.ErrGRPCCompacted)
}

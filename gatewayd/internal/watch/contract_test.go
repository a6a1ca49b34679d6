package watch_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/gatewayd/internal/watch"
)

func TestWatchFromNowSeesWhatComesAfterCreated(t *testing.T) {
	w := newWorld(t)
	w.put(put("a", "old"))
	c := w.client()
	got := c.watch(key("a"))
	if got.WatchId != 0 || got.Header.Revision != 2 {
		t.Fatalf("created: %v", got)
	}
	w.put(put("b", "other"))
	r := w.put(put("a", "new"))
	ev := c.recv()
	if ev.Header.Revision != r || ev.WatchId != 0 {
		t.Fatalf("response: %v", ev)
	}
	requireSeen(t, eventsOf(ev), []seen{{revision: r, key: "a", value: "new"}})
}

func TestTransactionIsOneResponseInOperationOrder(t *testing.T) {
	w := newWorld(t)
	w.put(put("b", "0"), put("a", "0"))
	c := w.client()
	c.watch(everything())
	r := w.put(put("c", "1"), del("b"), put("a", "1"))
	requireSeen(t, eventsOf(c.recv()), w.store.expect("\x00", "\x00", r, false, false, false))
}

func TestWatcherGetsOnlyItsPartOfATransaction(t *testing.T) {
	w := newWorld(t)
	w.publish()
	c := w.client()
	c.watch(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("d")})
	r := w.put(put("a", "1"), put("b", "2"), put("c", "3"), put("d", "4"))
	requireSeen(t, eventsOf(c.recv()), []seen{{revision: r, key: "b", value: "2"}, {revision: r, key: "c", value: "3"}})
}

func TestFiltersAndPrevKV(t *testing.T) {
	w := newWorld(t)
	w.publish()
	puts, deletes := w.client(), w.client()
	puts.watch(&pb.WatchCreateRequest{Key: []byte("a"), PrevKv: true, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}})
	deletes.watch(&pb.WatchCreateRequest{Key: []byte("a"), PrevKv: true, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}})
	w.put(put("a", "1"))
	w.put(put("a", "2"))
	w.put(del("a"))
	w.put(put("a", "3"))
	requireSeen(t, puts.events(3), []seen{{2, "a", false, "1", ""}, {3, "a", false, "2", "1"}, {5, "a", false, "3", ""}})
	requireSeen(t, deletes.events(1), []seen{{4, "a", true, "", "2"}})
	deletes.silent()
}

func TestCatchUpIsOneResponseWithTheCurrentRevision(t *testing.T) {
	for name, ring := range map[string]option{"ring": ringBytes(1 << 20), "history": ringBytes(0)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, ring)
			for i := range 10 {
				w.put(put("a", fmt.Sprint(i)))
				w.put(put("b", fmt.Sprint(i)))
			}
			c := w.client()
			c.watch(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 4, PrevKv: true})
			got := c.recv()
			if got.Header.Revision != 21 {
				t.Fatalf("header: %v", got.Header)
			}
			requireSeen(t, eventsOf(got), w.store.expect("a", "", 4, false, false, true))
			r := w.put(put("a", "live"))
			requireSeen(t, eventsOf(c.recv()), []seen{{revision: r, key: "a", value: "live", prev: "9"}})
		})
	}
}

func TestCatchUpCutsAfterThousandRevisions(t *testing.T) {
	w := newWorld(t, ringBytes(0))
	for i := range 2500 {
		w.store.write(put("a", fmt.Sprint(i)))
	}
	w.lose()
	c := w.client()
	c.watch(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 2})
	var all []seen
	for len(all) < 2500 {
		got := c.recv()
		if len(got.Events) > 1000 || got.Header.Revision != 2501 {
			t.Fatalf("%d events, header %v", len(got.Events), got.Header)
		}
		all = append(all, eventsOf(got)...)
	}
	requireSeen(t, all, w.store.expect("a", "", 2, false, false, false))
}

func TestRefusedCreates(t *testing.T) {
	w := newWorld(t, func(_ *watch.Config, d *watch.Deps) {
		d.Authorize = func(_ context.Context, key, end []byte) error {
			if string(key) == "secret" || string(end) == "\x00" {
				return rpctypes.ErrGRPCPermissionDenied
			}
			return nil
		}
	})
	w.put(put("a", "1"))
	c := w.client()
	c.watch(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: 5})
	for _, try := range []struct {
		request *pb.WatchCreateRequest
		reason  string
	}{
		{&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: -1}, "etcdserver: mvcc: required revision has been compacted"},
		{&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("b")}, "mvcc: watcher range is empty"},
		{&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")}, "mvcc: watcher range is empty"},
		{&pb.WatchCreateRequest{Key: []byte("b"), WatchId: 5}, "mvcc: duplicate watch ID provided on the WatchStream"},
		{&pb.WatchCreateRequest{Key: []byte("secret")}, "rpc error: code = PermissionDenied desc = etcdserver: permission denied"},
		{&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte{0}}, "rpc error: code = PermissionDenied desc = etcdserver: permission denied"},
	} {
		c.create(try.request)
		got := c.recv()
		want := &pb.WatchResponse{Header: &pb.ResponseHeader{ClusterId: 7, MemberId: 8, Revision: 2, RaftTerm: 9}, WatchId: -1, Created: true, Canceled: true, CancelReason: try.reason}
		if !proto.Equal(got, want) {
			t.Errorf("%v:\n got %v\nwant %v", try.request, got, want)
		}
	}
}

func TestAutomaticIDsSkipUsedOnes(t *testing.T) {
	w := newWorld(t)
	w.publish()
	c := w.client()
	for _, step := range []struct{ asked, want int64 }{{0, 0}, {2, 2}, {0, 1}, {0, 3}, {1000, 1000}, {0, 4}} {
		if got := c.watch(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: step.asked}); got.WatchId != step.want {
			t.Fatalf("asked for %d: %d, want %d", step.asked, got.WatchId, step.want)
		}
	}
	// As in etcd a number that was given once is not given again.
	c.cancelWatch(1)
	c.recv()
	if got := c.watch(key("a")); got.WatchId != 5 {
		t.Fatalf("got %v", got)
	}
	r := w.put(put("a", "1"))
	got := make(map[int64]bool)
	for range 6 {
		ev := c.recv()
		requireSeen(t, eventsOf(ev), []seen{{revision: r, key: "a", value: "1"}})
		got[ev.WatchId] = true
	}
	if len(got) != 6 {
		t.Fatalf("ids of the events: %v", got)
	}
}

func TestEmptyKeyAndOpenEnd(t *testing.T) {
	w := newWorld(t)
	w.publish()
	all, one := w.client(), w.client()
	all.watch(&pb.WatchCreateRequest{RangeEnd: []byte{0}})
	one.watch(&pb.WatchCreateRequest{})
	w.put(put("\x00", "zero"))
	w.put(put("\xff\xff", "last"))
	requireSeen(t, all.events(2), w.store.expect("\x00", "\x00", 0, false, false, false))
	requireSeen(t, one.events(1), []seen{{revision: 2, key: "\x00", value: "zero"}})
	one.silent()
}

func TestCancelAnswersOnceAndEndsEvents(t *testing.T) {
	w := newWorld(t)
	w.publish()
	c := w.client()
	c.watch(key("a"))
	c.cancelWatch(77)
	c.silent()
	w.put(put("b", "1"))
	c.cancelWatch(0)
	got := c.recv()
	if !got.Canceled || got.Created || got.WatchId != 0 || got.CompactRevision != 0 || got.CancelReason != "" || got.Header.Revision != 2 {
		t.Fatalf("canceled: %v", got)
	}
	c.cancelWatch(0)
	w.put(put("a", "1"))
	c.silent()
}

func TestStartBelowCompactionIsCanceledAfterCreated(t *testing.T) {
	w := newWorld(t)
	for range 5 {
		w.put(put("a", "1"))
	}
	w.store.compactTo(4)
	w.publish()
	c := w.client()
	if got := c.watch(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 3}); got.Header.Revision != 6 {
		t.Fatalf("created: %v", got)
	}
	want := &pb.WatchResponse{Header: &pb.ResponseHeader{ClusterId: 7, MemberId: 8, RaftTerm: 9}, Canceled: true, CompactRevision: 4}
	if got := c.recv(); !proto.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	c.watch(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 4})
	requireSeen(t, c.events(3), w.store.expect("a", "", 4, false, false, false))
}

func TestCompactionOvertakesAWatcherThatReadsHistory(t *testing.T) {
	w := newWorld(t, ringBytes(0))
	for range 5 {
		w.store.write(put("a", "1"))
	}
	w.lose()
	// The store is behind, so the watcher waits for it.
	w.store.set(func(s *memoryStore) { s.applied = 1 })
	c := w.client()
	c.watch(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 3})
	w.store.compactTo(5)
	w.publish()
	w.store.set(func(s *memoryStore) { s.applied = 0 })
	if got := c.recv(); !got.Canceled || got.CompactRevision != 5 || got.Header.Revision != 0 || got.WatchId != 0 || got.CancelReason != "" {
		t.Fatalf("got %v", got)
	}
	c.silent()
}

func TestFragmentsAreCutBySizeAndStayTogether(t *testing.T) {
	const limit = 1000
	w := newWorld(t, func(c *watch.Config, _ *watch.Deps) { c.RequestBytesMax = limit })
	w.publish()
	pieces, whole := w.client(), w.client()
	pieces.watch(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, Fragment: true})
	pieces.watch(key("a"))
	whole.watch(everything())
	value := strings.Repeat("x", 150<<10)
	var ops []op
	for i := range 10 {
		ops = append(ops, put(fmt.Sprintf("a%d", i), value))
	}
	w.put(append(ops, put("a", "small"))...)
	var all []seen
	for last := false; !last; {
		got := pieces.recv()
		if got.WatchId == 1 {
			if len(all) != 0 && len(all) != 11 {
				t.Fatal("another watch's response came between the pieces")
			}
			continue
		}
		if bytes := proto.Size(got); bytes >= limit+512<<10 {
			t.Fatalf("a piece has %d bytes", bytes)
		}
		all = append(all, eventsOf(got)...)
		if last = !got.Fragment; !last && len(got.Events) != 3 {
			t.Fatalf("a piece has %d events", len(got.Events))
		}
	}
	want := w.store.expect("\x00", "\x00", 2, false, false, false)
	requireSeen(t, all, want)
	if got := whole.recv(); got.Fragment || len(got.Events) != 11 {
		t.Fatalf("without asking for fragments: %d events, fragment %v", len(got.Events), got.Fragment)
	}
	late := w.client()
	late.watch(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, Fragment: true, StartRevision: 2})
	requireSeen(t, late.events(11), want)
	one := w.client()
	one.watch(&pb.WatchCreateRequest{Key: []byte("big"), Fragment: true})
	w.put(put("big", strings.Repeat("y", 1<<20)))
	if got := one.recv(); got.Fragment || len(got.Events) != 1 {
		t.Fatal("a single event was cut")
	}
}

func TestHalfCloseKeepsTheStream(t *testing.T) {
	w := newWorld(t)
	w.publish()
	c := w.client()
	c.watch(key("a"))
	must(c.stream.CloseSend())
	r := w.put(put("a", "1"))
	requireSeen(t, eventsOf(c.recv()), []seen{{revision: r, key: "a", value: "1"}})
}

func TestStopEndsStreamsSoThatClientsResume(t *testing.T) {
	w := newWorld(t)
	w.publish()
	c := w.client()
	c.watch(key("a"))
	w.stopHub()
	if _, err := c.stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("stream ended with %v", err)
	}
	if _, err := w.client().stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("a later stream ended with %v", err)
	}
}

func TestManualProgress(t *testing.T) {
	w := newWorld(t)
	w.put(put("a", "1"))
	c := w.client()
	c.progress()
	c.silent() // no watcher
	c.watch(key("a"))
	c.watch(key("b"))
	c.progress()
	want := &pb.WatchResponse{Header: &pb.ResponseHeader{ClusterId: 7, MemberId: 8, Revision: 2, RaftTerm: 9}, WatchId: -1}
	if got := c.recv(); !proto.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	w.put(put("a", "2"))
	c.progress()
	c.events(1)
	if got := c.recv(); got.WatchId != -1 || got.Header.Revision != 3 {
		t.Fatalf("got %v", got)
	}
}

func TestPeriodicProgressOfQuietWatchersOnly(t *testing.T) {
	w := newWorld(t, func(c *watch.Config, _ *watch.Deps) { c.ProgressInterval = time.Second })
	w.put(put("a", "1"))
	c := w.client()
	c.watch(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true})
	c.watch(&pb.WatchCreateRequest{Key: []byte("b"), ProgressNotify: true})
	c.watch(key("c"))
	w.put(put("a", "2"))
	c.events(1)
	w.clock.Advance(1100 * time.Millisecond)
	if got := c.recv(); got.WatchId != 1 || len(got.Events) != 0 || got.Header.Revision != 3 || got.Created || got.Canceled {
		t.Fatalf("got %v", got)
	}
	w.clock.Advance(1100 * time.Millisecond)
	ids := map[int64]bool{c.recv().WatchId: true, c.recv().WatchId: true}
	if !ids[0] || !ids[1] {
		t.Fatalf("progress of %v", ids)
	}
}

func TestCreatedTellsNoRevisionBelowTheFloor(t *testing.T) {
	w := newWorld(t)
	w.put(put("a", "1"))
	w.raise(4) // another client of this gateway has read revision 4
	c := w.client()
	if got := c.watch(key("a")); got.Header.Revision != 4 {
		t.Fatalf("created: %v", got)
	}
	c.progress() // waits for the ring to reach the floor
	c.silent()
	w.store.write(put("a", "3"))
	w.store.write(put("a", "4"))
	w.store.write(put("a", "5"))
	w.publish()
	if got := c.recv(); got.Header.Revision != 5 || len(got.Events) != 1 {
		t.Fatalf("got %v", got)
	}
	if got := c.recv(); got.WatchId != -1 || got.Header.Revision != 5 {
		t.Fatalf("got %v", got)
	}
	c.silent()
}

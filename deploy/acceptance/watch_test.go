package acceptance

import (
	"fmt"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

func TestWatchShowsEveryWriteAtItsRevision(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		s.must(s.put("a", "1"))
		w := s.watchWith(s.ctx)
		w.create(s.allWatched())
		w.want("creation", "id 0 +1 created")
		steps := []struct {
			req  any
			want string
		}{
			{s.put("a", "2"), "id 0 +2 [PUT a=2(+1,+2,v2)]"},
			{s.put("a", "2"), "id 0 +3 [PUT a=2(+1,+3,v3)]"},
			{s.put("b", ""), "id 0 +4 [PUT b=(+4,+4,v1)]"},
			{s.del("a"), "id 0 +5 [DELETE a=(0,+5,v0)]"},
			{s.put("a", "3"), "id 0 +6 [PUT a=3(+6,+6,v1)]"},
			{&pb.TxnRequest{Success: ops(s.put("c", "1"), s.del("b"), s.put("a", "4"), s.del("none"))},
				"id 0 +7 [PUT c=1(+7,+7,v1); DELETE b=(0,+7,v0); PUT a=4(+6,+7,v2)]"},
			{s.delRange("a", "z"), "id 0 +8 [DELETE a=(0,+8,v0); DELETE c=(0,+8,v0)]"},
		}
		for _, step := range steps {
			s.must(step.req)
			w.want(fmt.Sprint(step.req), step.want)
		}
		s.must(s.del("none"), &pb.TxnRequest{Success: ops(s.get("a"))})
		if p := w.wantQuiet("no event without a revision"); p.Header.Revision != s.base+8 {
			t.Errorf("progress at %s, want +8", s.rev(p.Header.Revision))
		}
	})
}

func TestWatchPrevKVAndFilters(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		prev := s.allWatched()
		prev.PrevKv = true
		withPrev := s.watching(prev)
		noPut := s.allWatched()
		noPut.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}
		deletes := s.watching(noPut)
		noDelete := s.allWatched()
		noDelete.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
		puts := s.watching(noDelete)

		s.must(s.put("a", "1"), s.put("a", "2"), s.del("a"), &pb.TxnRequest{Success: ops(s.put("a", "3"), s.put("b", "1"))},
			&pb.TxnRequest{Success: ops(s.del("a"), s.put("b", "2"))})
		want := []string{
			"PUT a=1(+1,+1,v1)",
			"PUT a=2(+1,+2,v2) prev a=1(+1,+1,v1)",
			"DELETE a=(0,+3,v0) prev a=2(+1,+2,v2)",
			"PUT a=3(+4,+4,v1)", "PUT b=1(+4,+4,v1)",
			"DELETE a=(0,+5,v0) prev a=3(+4,+4,v1)", "PUT b=2(+4,+5,v2) prev b=1(+4,+4,v1)",
		}
		withPrev.wantEvents("with prev_kv", want)
		withPrev.wantQuiet("with prev_kv")
		deletes.wantEvents("deletes only", []string{"DELETE a=(0,+3,v0)", "DELETE a=(0,+5,v0)"})
		deletes.wantQuiet("deletes only")
		puts.wantEvents("puts only", []string{"PUT a=1(+1,+1,v1)", "PUT a=2(+1,+2,v2)", "PUT a=3(+4,+4,v1)", "PUT b=1(+4,+4,v1)", "PUT b=2(+4,+5,v2)"})
		puts.wantQuiet("puts only")

		history := s.watchWith(s.ctx)
		prev.StartRevision = s.base + 1
		history.create(prev)
		history.recv()
		history.wantEvents("history with prev_kv", want)
	})
}

// wantEvents takes responses until it has as many events as wanted.
func (w *watchStream) wantEvents(name string, want []string) {
	w.s.t.Helper()
	for i := 0; i < len(want); {
		for _, ev := range w.recv().Events {
			got := w.s.showEvents([]*mvccpb.Event{ev})
			if i >= len(want) || got != "["+want[i]+"]" {
				w.s.t.Errorf("%s, event %d:\n got %s\nwant %s", name, i, got, want[min(i, len(want)-1)])
			}
			i++
		}
	}
}

func TestWatchRanges(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		w := s.watchWith(s.ctx)
		for _, req := range []*pb.WatchCreateRequest{
			{Key: s.k("b")},
			{Key: s.k("b"), RangeEnd: s.k("d")},
			{RangeEnd: []byte{0}},
			{Key: s.k("d"), RangeEnd: []byte{0}},
			{}, // the single key "\0"
		} {
			w.create(req)
		}
		w.want("ids are given in order", "id 0 +0 created", "id 1 +0 created", "id 2 +0 created", "id 3 +0 created", "id 4 +0 created")
		s.must(s.put("a", "1"), s.put("b", "1"), s.put("c", "1"), s.put("d", "1"))
		got := map[int64]string{}
		for n := 0; n < 8; {
			resp := w.recv()
			for _, ev := range resp.Events {
				got[resp.WatchId] += s.key(ev.Kv.Key)
				n++
			}
		}
		w.wantQuiet("all came")
		want := map[int64]string{0: "b", 1: "bc", 2: "abcd", 3: "d"}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("keys by watch: %v, want %v", got, want)
		}
	})
}

func TestWatchCreationRefused(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		w := s.watchWith(s.ctx)
		if !tg.has(negativeStartIsTaken) {
			w.create(&pb.WatchCreateRequest{Key: s.k("a"), StartRevision: -1})
			w.want("negative start", `id -1 +0 created canceled "etcdserver: mvcc: required revision has been compacted"`)
		}
		w.create(&pb.WatchCreateRequest{Key: s.k("b"), RangeEnd: s.k("a")})
		w.want("inverted range", `id -1 +0 created canceled "mvcc: watcher range is empty"`)
		w.create(&pb.WatchCreateRequest{Key: s.k("b"), RangeEnd: s.k("b")})
		w.want("empty range", `id -1 +0 created canceled "mvcc: watcher range is empty"`)
		w.create(&pb.WatchCreateRequest{Key: s.k("a"), WatchId: 1})
		w.want("an id of the client's", "id 1 +0 created")
		w.create(&pb.WatchCreateRequest{Key: s.k("a"), WatchId: 1})
		w.want("the same again", `id -1 +0 created canceled "mvcc: duplicate watch ID provided on the WatchStream"`)
		w.create(&pb.WatchCreateRequest{Key: s.k("a")})
		w.create(&pb.WatchCreateRequest{Key: s.k("a")})
		w.want("automatic ids begin at 0 and skip used ones", "id 0 +0 created", "id 2 +0 created")
		w.create(&pb.WatchCreateRequest{Key: s.k("a"), WatchId: 77})
		w.want("another id of the client's", "id 77 +0 created")
		s.must(s.put("a", "1"))
		seen := map[int64]bool{}
		for range 4 {
			seen[w.recv().WatchId] = true
		}
		if len(seen) != 4 || !seen[0] || !seen[1] || !seen[2] || !seen[77] {
			t.Errorf("watches that saw the put: %v", seen)
		}
	})
}

func TestWatchCancel(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		w := s.watching(s.allWatched())
		w.cancel(99) // unknown: no answer
		s.must(s.put("a", "1"))
		w.want("event", "id 0 +1 [PUT a=1(+1,+1,v1)]")
		w.cancel(0)
		w.want("cancel", "id 0 +1 canceled")
		s.must(s.put("a", "2"))
		w.create(s.allWatched())
		w.want("creation after it", "id 1 +2 created")
		w.wantQuiet("nothing of the cancelled watch")
		w.cancel(1)
		w.want("cancel", "id 1 +2 canceled")
		w.create(&pb.WatchCreateRequest{Key: s.k("a"), WatchId: 1})
		w.want("the id is free again", "id 1 +2 created")
	})
}

func TestWatchFromHistory(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		const writes = 2500 // more than two batches of etcd's catch-up
		s.putMany(writes)
		for _, from := range []int64{1, writes / 2, writes, writes + 1} {
			req := s.allWatched()
			req.StartRevision = s.base + from
			w := s.watchWith(s.ctx)
			w.create(req)
			w.want("creation", fmt.Sprintf("id 0 +%d created", writes))
			for next := from; next <= writes; {
				resp := w.recv()
				if resp.Header.Revision != s.base+writes {
					t.Fatalf("catching up: header at %s, want +%d", s.rev(resp.Header.Revision), writes)
				}
				for _, ev := range resp.Events {
					if ev.Kv.ModRevision != s.base+next {
						t.Fatalf("from +%d: got %s, want revision +%d", from, s.showKV(ev.Kv), next)
					}
					next++
				}
			}
			if from > writes {
				continue // from the future: nothing to tell
			}
			if p := w.wantQuiet("history read"); p.Header.Revision != s.base+writes {
				t.Errorf("progress at %s, want +%d", s.rev(p.Header.Revision), writes)
			}
		}
	})
}

// putMany makes n revisions, on seven keys, from several callers at once.
func (s *scene) putMany(n int) {
	s.t.Helper()
	const callers = 20
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := c; i < n; i += callers {
				if _, err := s.kv.Put(s.ctx, s.put(fmt.Sprint(i%7), fmt.Sprint(i))); err != nil {
					s.t.Errorf("put: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestWatchFromFuture(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		w := s.watchWith(s.ctx)
		req := s.allWatched()
		req.StartRevision = s.base + 3
		w.create(req)
		w.want("creation", "id 0 +0 created")
		if !tg.has(futureWatchGetsProgress) {
			w.askProgress() // a revision before the start: no answer
		}
		s.must(s.put("a", "1"), s.put("a", "2"))
		s.must(s.put("a", "3"), s.put("a", "4"))
		w.wantEvents("from the start revision on", []string{"PUT a=3(+1,+3,v3)", "PUT a=4(+1,+4,v4)"})
		w.wantQuiet("nothing else")
	})
}

func TestWatchCompacted(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		s.must(s.put("a", "1"), s.put("a", "2"), s.put("b", "1"), s.del("b"), s.put("a", "3"))
		s.must(&pb.CompactionRequest{Revision: s.base + 4, Physical: true})
		from := func(rev int64) *watchStream {
			w := s.watchWith(s.ctx)
			req := s.allWatched()
			// What stood before the compact revision may be gone, or not yet.
			req.StartRevision, req.PrevKv = s.base+rev, rev > 4
			w.create(req)
			w.want("creation", "id 0 +5 created")
			return w
		}
		from(1).want("long compacted", "id 0 0 canceled compacted at +4")
		from(3).want("just compacted", "id 0 0 canceled compacted at +4")
		if !tg.has(deleteAtCompactRevisionLost) {
			w := from(4)
			w.wantEvents("the compact revision", []string{"DELETE b=(0,+4,v0)", "PUT a=3(+1,+5,v3)"})
			w.wantQuiet("no more")
		}
		from(5).wantEvents("after it", []string{"PUT a=3(+1,+5,v3) prev a=2(+1,+2,v2)"})
	})
}

func TestWatchOutlivesHalfClose(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		w := s.watching(s.allWatched())
		if err := w.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		s.must(s.put("a", "1"))
		w.want("event after half-close", "id 0 +1 [PUT a=1(+1,+1,v1)]")
	})
}

func TestRequireLeaderIsServedWithALeader(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		s.ctx = metadata.AppendToOutgoingContext(s.ctx, "hasleader", "true")
		s.want("put", s.put("a", "1"), "+1")
		w := s.watchWith(s.ctx)
		w.create(s.allWatched())
		w.want("creation", "id 0 +1 created")
		s.must(s.put("a", "2"))
		w.want("event", "id 0 +2 [PUT a=2(+1,+2,v2)]")
	})
}

func TestWatchProgressOnRequest(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		w := s.watchWith(s.ctx)
		if !tg.has(progressWithoutWatchers) {
			w.askProgress() // no answer
		}
		w.create(&pb.WatchCreateRequest{Key: s.k("a")})
		w.want("creation", "id 0 +0 created")
		w.create(&pb.WatchCreateRequest{Key: s.k("b")})
		w.want("creation", "id 1 +0 created")
		s.must(s.put("c", "1"), s.put("c", "2"))
		if p := w.wantQuiet("other keys"); p.Header.Revision != s.base+2 || p.WatchId != -1 {
			t.Errorf("progress: %s, want id -1 +2", s.showWatch(p))
		}
		for i := range 50 {
			s.must(s.put("a", fmt.Sprint(i)))
			w.askProgress()
		}
		var last, progress int64
		for last < s.base+52 {
			resp := w.recv()
			for _, ev := range resp.Events {
				if ev.Kv.ModRevision <= progress && !tg.has(progressAheadOfEvents) {
					t.Errorf("event at %s after progress at %s", s.rev(ev.Kv.ModRevision), s.rev(progress))
				}
				last = ev.Kv.ModRevision
			}
			if len(resp.Events) == 0 {
				progress = resp.Header.Revision
			}
		}
	})
}

func TestWatchFragments(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		const writes, size = 6, 1 << 20 // together more than 1.5 MiB + 512 KiB
		for i := range writes {
			s.must(&pb.PutRequest{Key: s.k(fmt.Sprint("big/", i)), Value: make([]byte, size)})
		}
		for _, fragment := range []bool{true, false} {
			w := s.watchWith(s.ctx)
			req := s.allWatched()
			req.StartRevision, req.Fragment = s.base+1, fragment
			w.create(req)
			w.want("creation", "id 0 +6 created")
			pieces, events, open := 0, 0, false
			for events < writes {
				resp := w.recv()
				pieces++
				open = resp.Fragment
				for _, ev := range resp.Events {
					events++
					if ev.Kv.ModRevision != s.base+int64(events) {
						t.Errorf("event %d: %s", events, s.showKV(ev.Kv))
					}
				}
				if open && !fragment {
					t.Error("a fragment that was not asked for")
				}
				if resp.Fragment && events == writes {
					t.Error("the last piece says that more follows")
				}
			}
			if fragment && pieces < 2 {
				t.Errorf("%d MiB came in one piece", writes)
			}
			w.wantQuiet("no more")
		}
	})
}

// TestWatchersAgreeUnderConcurrentWrites: watchers through different endpoints,
// live and from history, see every revision once, in order, and alike.
func TestWatchersAgreeUnderConcurrentWrites(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		const writers, each = 8, 50
		const total = writers*each + 1
		s.must(s.put("first", "1")) // a watch from a future revision is another test's matter
		var live []clientv3.WatchChan
		for _, ep := range tg.Endpoints() {
			cl, err := tg.Client(ep)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			if _, err := cl.Get(s.ctx, s.prefix); err != nil { // its member has the first write
				t.Fatal(err)
			}
			live = append(live, cl.Watch(s.ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(s.base+1), clientv3.WithPrevKV()))
		}
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					key := string(s.k(fmt.Sprint(i % 5)))
					if _, err := tg.client.Put(s.ctx, key, fmt.Sprintf("%d/%d", w, i)); err != nil {
						t.Errorf("put: %v", err)
						return
					}
				}
			})
		}
		wg.Wait()
		want := s.collect(tg.client.Watch(s.ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(s.base+1), clientv3.WithPrevKV()), total)
		for i, ch := range live {
			if got := s.collect(ch, total); got != want {
				t.Errorf("watcher %d saw other events than one that read them afterwards", i)
			}
		}
	})
}

// collect returns the text of the next total events, which must come one per
// revision, with the previous value of each key.
func (s *scene) collect(ch clientv3.WatchChan, total int) string {
	s.t.Helper()
	var text string
	next := s.base + 1
	versions := map[string]int64{}
	for n := 0; n < total; {
		resp, ok := <-ch
		if !ok || resp.Err() != nil {
			s.t.Fatalf("watch ended after %d events: %v", n, resp.Err())
		}
		for _, ev := range resp.Events {
			if ev.Kv.ModRevision != next {
				s.t.Fatalf("event at %s, want %s", s.rev(ev.Kv.ModRevision), s.rev(next))
			}
			if key := string(ev.Kv.Key); ev.PrevKv.GetVersion() != versions[key] {
				s.t.Fatalf("%s: prev_kv has version %d, want %d", s.showKV(ev.Kv), ev.PrevKv.GetVersion(), versions[key])
			} else {
				versions[key] = ev.Kv.Version
			}
			text += s.showEvents([]*mvccpb.Event{(*mvccpb.Event)(ev)})
			next++
			n++
		}
	}
	return text
}

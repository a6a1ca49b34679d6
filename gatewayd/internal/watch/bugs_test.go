package watch_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/gatewayd/internal/watch"
	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/services/bus"
	"github.com/quartet-kv/quartet/services/logid"
)

// Each test here is a bug that etcd had, by its issue number.

// clog writes until a client that does not read has a watcher set aside.
func (w *world) clog() {
	value := strings.Repeat("x", 8<<10)
	for i := 0; w.count("quartet_gatewayd_watch_refused_total") == 0; i++ {
		w.put(put("a", fmt.Sprint(i)+value))
	}
}

func TestProgressNeverRunsAheadOfEvents15220(t *testing.T) {
	for name, ring := range map[string]option{"ring": ringBytes(64 << 20), "history": ringBytes(0)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, ring, outboxBytes(16<<10))
			w.publish()
			c := w.client()
			c.watch(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true})
			w.clog()
			for range 20 {
				c.progress()
			}
			w.clock.Advance(time.Hour)
			r := w.put(put("a", "last"))
			var all []seen
			c.settle(r, func(got *pb.WatchResponse) {
				if len(got.Events) == 0 {
					requireSeen(t, all, w.store.expect("a", "", 2, false, false, false)[:got.Header.Revision-1])
				}
				all = append(all, eventsOf(got)...)
			})
			requireSeen(t, all, w.store.expect("a", "", 2, false, false, false))
		})
	}
}

func TestWatchNeverGoesBackInTime15271(t *testing.T) {
	w := newWorld(t)
	var batches []*buspb.Batch
	for i := range 5 {
		w.store.write(put("a", fmt.Sprint(i)))
		batches = append(batches, w.store.batch())
		must(w.hub.Accept(w.ctx, batches[i]))
	}
	c := w.client()
	c.watch(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 2})
	requireSeen(t, c.events(5), w.store.expect("a", "", 2, false, false, false))
	// A partition ends, and what a publisher had queued comes after all; a
	// receiver is told an old position.
	for _, b := range batches {
		must(w.hub.Accept(w.ctx, b))
	}
	must(w.hub.Reset(w.ctx, bus.Position{At: logid.ID{Epoch: 1, Index: 3}, Revision: 3}))
	c.silent()
	c.progress()
	if got := c.recv(); got.Header.Revision != 6 {
		t.Fatalf("progress: %v", got)
	}
	if got := c.watch(key("a")); got.Header.Revision != 6 {
		t.Fatalf("created: %v", got)
	}
}

func TestOverlappingBatchesGiveNoDuplicates17247(t *testing.T) {
	w := newWorld(t)
	w.publish()
	c := w.client()
	c.watch(everything())
	for i := range 20 {
		w.store.write(put("a", fmt.Sprint(i)), put("b", fmt.Sprint(i)))
		if i%3 == 0 {
			// The next batch begins where an earlier one began.
			w.store.set(func(s *memoryStore) { s.published = max(1, s.published-5) })
			b := w.store.batch()
			must(w.hub.Accept(w.ctx, b))
			must(w.hub.Accept(w.ctx, b))
		}
	}
	w.publish()
	requireSeen(t, c.events(40), w.store.expect("\x00", "\x00", 2, false, false, false))
	c.silent()
}

func TestSlowWatcherLosesNothing17529(t *testing.T) {
	for name, ring := range map[string]option{"ring": ringBytes(64 << 20), "history": ringBytes(0)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, ring, outboxBytes(16<<10))
			w.publish()
			slow, other := w.client(), w.client()
			slow.watch(key("a"))
			slow.watch(everything())
			other.watch(key("a"))
			value := strings.Repeat("x", 8<<10)
			for i := range 200 {
				w.put(put("a", fmt.Sprint(i)+value))
				other.events(1) // is held up by nobody
			}
			if w.count("quartet_gatewayd_watch_refused_total") == 0 {
				t.Fatal("the slow client was never full")
			}
			for i := range 10 {
				w.put(put("b", fmt.Sprint(i)))
			}
			var one, all []seen
			slow.settle(w.store.current(), func(got *pb.WatchResponse) {
				if got.WatchId == 0 {
					one = append(one, eventsOf(got)...)
				} else {
					all = append(all, eventsOf(got)...)
				}
			})
			requireSeen(t, one, w.store.expect("a", "", 2, false, false, false))
			requireSeen(t, all, w.store.expect("\x00", "\x00", 2, false, false, false))
		})
	}
}

func TestDeleteAtTheCompactRevisionIsSeen18089And19179(t *testing.T) {
	for name, ring := range map[string]option{"ring": ringBytes(1 << 20), "history": ringBytes(0)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, ring)
			w.put(put("a", "1"))
			w.put(put("b", "1"))
			deleted := w.put(del("a"))
			w.put(put("b", "2"))
			w.store.compactTo(deleted)
			w.publish()
			c := w.client()
			c.watch(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: deleted})
			requireSeen(t, c.events(2), []seen{{revision: deleted, key: "a", delete: true}, {revision: deleted + 1, key: "b", value: "2"}})
		})
	}
}

func TestFutureRevisionGetsNothingBefore20221And20290(t *testing.T) {
	w := newWorld(t, func(c *watch.Config, _ *watch.Deps) { c.ProgressInterval = time.Second })
	w.put(put("a", "1"))
	c := w.client()
	c.watch(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 7, ProgressNotify: true})
	w.put(put("a", "2"))
	// Even where the others have to go to history.
	w.store.write(put("a", "3"))
	w.lose()
	w.clock.Advance(10 * time.Second)
	c.progress()
	c.silent()
	w.put(put("a", "4"), put("b", "4"))
	w.put(put("b", "5"))
	c.silent()
	w.put(put("a", "6"))
	requireSeen(t, c.events(1), []seen{{revision: 7, key: "a", value: "6"}})
	c.progress()
	if got := c.recv(); got.WatchId != -1 || got.Header.Revision != 7 {
		t.Fatalf("got %v", got)
	}
	// Lost right across the start.
	c.watch(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 9})
	for i := range 4 {
		w.store.write(put("a", fmt.Sprint(i)))
	}
	w.lose()
	var second []seen
	c.settle(11, func(got *pb.WatchResponse) {
		if got.WatchId == 1 {
			second = append(second, eventsOf(got)...)
		}
	})
	requireSeen(t, second, w.store.expect("a", "", 9, false, false, false))
}

func TestLostBatchesAreReadFromHistory(t *testing.T) {
	w := newWorld(t, realClock(), func(c *watch.Config, _ *watch.Deps) { c.HistoryRetry = time.Millisecond })
	w.publish()
	c := w.client()
	c.watch(key("a"))
	c.watch(everything())
	c.watch(key("z"))
	for i := range 5 {
		w.put(put("a", fmt.Sprint("given", i)))
		w.store.write(put("a", fmt.Sprint("lost", i)), put("b", ""))
		switch i {
		case 0: // a gap that nobody tells
			w.store.batch()
		case 1: // the batch was too large
			b := w.store.batch()
			must(w.hub.Accept(w.ctx, &buspb.Batch{At: b.At, PrevRevision: b.PrevRevision, Revision: b.Revision, Pull: true}))
		case 2: // a store that is behind, and breaks
			w.store.set(func(s *memoryStore) { s.applied, s.failures = 2, 1 })
			w.lose()
			w.store.set(func(s *memoryStore) { s.applied, s.failures = 0, 0 })
		default:
			w.lose()
		}
	}
	r := w.put(put("b", "last"))
	got := make(map[int64][]seen)
	c.settle(r, func(r *pb.WatchResponse) { got[r.WatchId] = append(got[r.WatchId], eventsOf(r)...) })
	requireSeen(t, got[0], w.store.expect("a", "", 2, false, false, false))
	requireSeen(t, got[1], w.store.expect("\x00", "\x00", 2, false, false, false))
	requireSeen(t, got[2], nil)
}

func TestWatchersShareReadersOfHistory(t *testing.T) {
	w := newWorld(t, ringBytes(0))
	for i := range 300 {
		w.store.write(put(fmt.Sprint("k", i%100), fmt.Sprint(i)))
	}
	w.publish()
	c := w.client()
	for i := range 100 {
		c.watch(key(fmt.Sprint("k", i)))
	}
	w.store.write(put("other", ""))
	w.lose()
	w.store.set(func(s *memoryStore) { s.requests = nil })
	w.store.write(put("k7", "seven"))
	w.lose()
	requireSeen(t, c.events(1), []seen{{revision: 303, key: "k7", value: "seven", prev: ""}})
	c.settle(303, func(*pb.WatchResponse) { t.Fatal("an event for nobody") })
	w.store.set(func(s *memoryStore) {
		if n := len(s.requests); n > 10 {
			t.Errorf("%d reads of history for 100 watchers", n)
		}
	})
}

func TestManyWatchersGoThroughALossTogether(t *testing.T) {
	const watchers = 2000
	for name, ring := range map[string]option{"ring": ringBytes(64 << 20), "history": ringBytes(0)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, ring)
			w.publish()
			c := w.client()
			for i := range watchers {
				c.create(key(fmt.Sprint("k", i)))
			}
			for range watchers {
				if got := c.recv(); !got.Created || got.Canceled {
					t.Fatalf("got %v", got)
				}
			}
			for i := range watchers {
				w.store.write(put(fmt.Sprint("k", i), "1"), put(fmt.Sprint("k", (i+1)%watchers), "1"))
			}
			w.lose()
			for i := range watchers {
				w.put(put(fmt.Sprint("k", i), "2"))
			}
			got := make([][]seen, watchers)
			c.settle(w.store.current(), func(r *pb.WatchResponse) { got[r.WatchId] = append(got[r.WatchId], eventsOf(r)...) })
			byKey := make(map[string][]seen)
			for _, e := range w.store.expect("\x00", "\x00", 2, false, false, false) {
				byKey[e.key] = append(byKey[e.key], e)
			}
			for i := range got {
				requireSeen(t, got[i], byKey[fmt.Sprint("k", i)])
			}
			w.store.set(func(s *memoryStore) {
				if n := len(s.requests); n > watchers/10 {
					t.Errorf("%d reads of history", n)
				}
			})
		})
	}
}

// endingStream is what the gateway's interceptor makes of a stream that requires
// a leader.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s endingStream) Context() context.Context { return s.ctx }

func TestStreamEndsWithTheStatusThatItsContextWasCancelledWith(t *testing.T) {
	for _, cause := range []error{rpctypes.ErrGRPCNoLeader, nil} {
		ends := make(chan context.CancelCauseFunc, 1)
		w := newWorldWith(t, grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			ctx, cancel := context.WithCancelCause(ss.Context())
			ends <- cancel
			return handler(srv, endingStream{ss, ctx})
		}))
		w.publish()
		c := w.client()
		c.watch(key("a"))
		(<-ends)(cause)
		want := cause
		if want == nil {
			want = rpctypes.ErrGRPCWatchCanceled
		}
		if _, err := c.stream.Recv(); rpctypes.ErrorDesc(err) != rpctypes.ErrorDesc(want) {
			t.Errorf("cancelled with %v: stream ended with %v", cause, err)
		}
	}
}

func TestRewrittenHistoryEndsStreams(t *testing.T) {
	w := newWorld(t)
	w.put(put("a", "1"))
	c := w.client()
	c.watch(key("a"))
	must(w.hub.Reset(w.ctx, bus.Position{At: logid.ID{Epoch: 2, Index: 1}, Revision: 1}))
	if _, err := c.stream.Recv(); rpctypes.ErrorDesc(err) != rpctypes.ErrorDesc(rpctypes.ErrGRPCWatchCanceled) {
		t.Fatalf("stream ended with %v", err)
	}
}

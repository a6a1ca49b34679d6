package watch_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/gatewayd/internal/watch"
	"github.com/quartet-kv/quartet/proto/buspb"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run only this seed of TestEveryWatcherSeesTheModelOnce")
	seedsFlag = flag.Uint64("seeds", 25, "seeds of TestEveryWatcherSeesTheModelOnce")
)

// TestEveryWatcherSeesTheModelOnce writes, loses, repeats, compacts and breaks
// at random under watchers of clients that pause, and then compares what each
// watcher got with what happened.
func TestEveryWatcherSeesTheModelOnce(t *testing.T) {
	seeds := *seedsFlag
	if testing.Short() {
		seeds = min(seeds, 8)
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		if *seedFlag != 0 {
			seed, seeds = *seedFlag, *seedFlag
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Logf("again with: go test ./internal/watch -run %s -seed %d", "TestEveryWatcherSeesTheModelOnce", seed)
			run := newRun(t, seed)
			for range 400 {
				run.step()
			}
			run.finish()
		})
	}
}

type run struct {
	*world
	rand    *rand.Rand
	readers []*reader
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func newRun(t *testing.T, seed uint64) *run {
	r := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t, realClock(), ringBytes(pick(r, 0, 8_000, 100_000, 1<<30)), outboxBytes(pick(r, 1, 4_000, 100_000, 1<<20)),
		func(c *watch.Config, _ *watch.Deps) {
			c.HistoryReadersMax = 1 + r.IntN(4)
			c.HistoryRetry = time.Millisecond
			c.ProgressInterval = 100 * time.Millisecond
			c.RequestBytesMax = 100
		})
	w.store.chunkEvents = pick(r, 0, 1, 3, 50)
	w.store.breakAfter = pick(r, 0, 0, 2, 5)
	run := &run{world: w, rand: r}
	w.publish()
	for range 1 + r.IntN(4) {
		run.readers = append(run.readers, newReader(w.client()))
	}
	return run
}

func (r *run) step() {
	c := r.readers[r.rand.IntN(len(r.readers))]
	switch n := r.rand.IntN(100); {
	case n < 45:
		r.write()
		if r.rand.IntN(3) > 0 {
			r.publish()
		}
	case n < 50:
		r.lose()
	case n < 55: // the same news again
		r.store.set(func(s *memoryStore) { s.published = max(1, s.published-int64(r.rand.IntN(10))) })
		r.publish()
	case n < 58:
		b := r.store.batch()
		must(r.hub.Accept(r.ctx, &buspb.Batch{At: b.At, PrevRevision: b.PrevRevision, Revision: b.Revision, CompactRevision: b.CompactRevision, Pull: true}))
	case n < 72:
		r.create(c)
	case n < 76:
		c.cancelSome(r.rand)
	case n < 82:
		c.progress()
	case n < 90:
		c.pause(r.rand.IntN(2) == 0)
	case n < 92:
		r.store.compactTo(max(r.store.compact, r.store.published-int64(r.rand.IntN(60))))
	case n < 94:
		r.store.set(func(s *memoryStore) { s.failures = r.rand.IntN(3) })
	case n < 97:
		lag := pick(r.rand, 0, max(1, r.store.current()-int64(r.rand.IntN(20))))
		r.store.set(func(s *memoryStore) { s.applied = lag })
	default:
		r.raise(r.store.current()) // somebody reads what is not published yet
	}
}

func (r *run) write() {
	used := make(map[string]bool)
	var ops []op
	for range pick(r.rand, 1, 1, 1, 2, 5) {
		k := fmt.Sprint("k", r.rand.IntN(8))
		if used[k] {
			continue
		}
		used[k] = true
		if r.rand.IntN(4) == 0 {
			ops = append(ops, del(k))
			continue
		}
		ops = append(ops, put(k, fmt.Sprint(r.store.current(), strings.Repeat("v", pick(r.rand, 1, 10, 1000, 20_000)))))
	}
	r.store.write(ops...)
}

func (r *run) create(c *reader) {
	lo, hi := fmt.Sprint("k", r.rand.IntN(8)), fmt.Sprint("k", r.rand.IntN(9))
	req := &pb.WatchCreateRequest{Key: []byte(lo), PrevKv: r.rand.IntN(2) == 0, Fragment: r.rand.IntN(2) == 0, ProgressNotify: r.rand.IntN(3) == 0}
	switch r.rand.IntN(4) {
	case 0:
		req.RangeEnd = []byte{0}
	case 1:
		if lo < hi {
			req.RangeEnd = []byte(hi)
		}
	}
	switch r.rand.IntN(3) {
	case 0:
		req.StartRevision = max(1, r.store.current()+5-int64(r.rand.IntN(100)))
	case 1:
		req.StartRevision = max(1, r.store.compact)
	}
	switch r.rand.IntN(8) {
	case 0:
		req.Filters = append(req.Filters, pb.WatchCreateRequest_NOPUT)
	case 1:
		req.Filters = append(req.Filters, pb.WatchCreateRequest_NODELETE)
	}
	c.ask(req)
}

func (r *run) finish() {
	for range 10 { // beyond every future start
		r.write()
	}
	r.store.write(put("k0", "last"))
	r.store.set(func(s *memoryStore) { s.applied, s.failures, s.breakAfter = 0, 0, 0 })
	r.publish()
	for _, c := range r.readers {
		c.pause(false)
		c.await(r.store.current())
		c.check()
	}
}

// reader is a client whose responses are read by a goroutine.
type reader struct {
	*client
	mu      sync.Mutex
	changed *sync.Cond
	paused  bool
	asked   []*pb.WatchCreateRequest // not answered
	watches map[int64]*watched       // by id
	all     []*watched
	reached int64 // by progress
	broken  string
}

// watched is what one watch got.
type watched struct {
	request  *pb.WatchCreateRequest
	id       int64
	from     int64
	got      []seen
	open     bool // in the middle of pieces
	canceled bool
	compact  int64
	promises []promise
}

// promise is a progress response: every event up to revision was among the
// first events.
type promise struct {
	revision int64
	events   int
}

func newReader(c *client) *reader {
	r := &reader{client: c, watches: make(map[int64]*watched)}
	r.changed = sync.NewCond(&r.mu)
	go r.read()
	return r
}

func (r *reader) read() {
	for {
		got, err := r.stream.Recv()
		r.mu.Lock()
		if err != nil {
			r.broken = err.Error()
			r.changed.Broadcast()
			r.mu.Unlock()
			return
		}
		r.take(got)
		r.changed.Broadcast()
		for r.paused {
			r.changed.Wait()
		}
		r.mu.Unlock()
	}
}

func (r *reader) take(got *pb.WatchResponse) {
	fail := func(why string) { r.broken = fmt.Sprintf("%s: %.300s", why, got.String()) }
	for _, w := range r.watches {
		if w.open && w.id != got.WatchId {
			fail("between the pieces of another watch")
		}
	}
	if got.Created {
		r.reached = 0 // progress counts if it speaks of every watch
		req := r.asked[0]
		r.asked = r.asked[1:]
		w := &watched{request: req, id: got.WatchId, from: req.StartRevision}
		if w.from == 0 {
			w.from = got.Header.Revision + 1
		}
		r.watches[w.id] = w
		r.all = append(r.all, w)
		return
	}
	if got.WatchId == -1 {
		r.reached = got.Header.Revision
		for _, w := range r.watches {
			w.promises = append(w.promises, promise{got.Header.Revision, len(w.got)})
		}
		return
	}
	w := r.watches[got.WatchId]
	switch {
	case w == nil:
		fail("for no watch")
	case got.Canceled:
		w.canceled, w.compact = true, got.CompactRevision
		delete(r.watches, w.id)
	case len(got.Events) == 0:
		w.promises = append(w.promises, promise{got.Header.Revision, len(w.got)})
	default:
		events := eventsOf(got)
		if events[len(events)-1].revision > got.Header.Revision {
			fail("header is behind its events")
		}
		w.open = got.Fragment
		w.got = append(w.got, events...)
	}
}

func (r *reader) ask(req *pb.WatchCreateRequest) {
	r.mu.Lock()
	r.asked = append(r.asked, req)
	r.mu.Unlock()
	r.create(req)
}

func (r *reader) cancelSome(rand *rand.Rand) {
	r.mu.Lock()
	n := len(r.all)
	r.mu.Unlock()
	r.cancelWatch(int64(rand.IntN(n + 1)))
}

func (r *reader) pause(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = on
	r.changed.Broadcast()
}

// await waits until the client is told that it has everything up to revision.
func (r *reader) await(revision int64) {
	r.ask(&pb.WatchCreateRequest{Key: []byte("none")}) // else a client without watches waits for ever
	// A request is answered only if everything is synced, so it is repeated.
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !r.done(revision) {
		r.progress()
		select {
		case <-again.C:
		case <-r.w.ctx.Done():
			return
		}
	}
}

func (r *reader) done(revision int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reached >= revision && len(r.asked) == 0 || r.broken != ""
}

func (r *reader) check() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != "" {
		r.w.t.Fatal(r.broken)
	}
	if len(r.asked) > 0 || r.reached < r.w.store.current() {
		r.w.t.Fatalf("after all: %d creates not answered, progress at %d of %d", len(r.asked), r.reached, r.w.store.current())
	}
	for _, w := range r.all {
		if err := r.checkWatch(w); err != nil {
			r.w.t.Errorf("watch %d %v from %d: %v", w.id, w.request, w.from, err)
		}
	}
}

func (r *reader) checkWatch(w *watched) error {
	noPut, noDelete := false, false
	for _, f := range w.request.Filters {
		noPut = noPut || f == pb.WatchCreateRequest_NOPUT
		noDelete = noDelete || f == pb.WatchCreateRequest_NODELETE
	}
	want := r.w.store.expect(string(w.request.Key), string(w.request.RangeEnd), w.from, noPut, noDelete, w.request.PrevKv)
	for i, p := range w.promises {
		if p.events < len(want) && want[p.events].revision <= p.revision {
			return fmt.Errorf("progress %d at %d ran ahead of %v", i, p.revision, want[p.events])
		}
	}
	if w.canceled && len(w.got) <= len(want) {
		if w.compact > 0 && len(w.got) < len(want) && w.compact <= w.from {
			return fmt.Errorf("canceled by compaction %d", w.compact)
		}
		want = want[:len(w.got)]
	}
	for i := range w.got {
		if i < len(want) && w.got[i].prev == "" && want[i].revision-1 < r.w.store.compact {
			want[i].prev = "" // compacted
		}
	}
	if i := firstDifference(w.got, want); i >= 0 {
		return fmt.Errorf("event %d differs: got %d events, want %d\n got %v\nwant %v", i, len(w.got), len(want), w.got[min(i, len(w.got)):min(i+3, len(w.got))], want[min(i, len(want)):min(i+3, len(want))])
	}
	return nil
}

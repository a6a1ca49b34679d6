package watch_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/gatewayd/internal/watch"
	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
)

// memoryStore is the model: every event that ever was, and a history service
// over it that can be behind, break, and send odd chunks.
type memoryStore struct {
	mu        sync.Mutex
	revisions []*buspb.Revision // [i] is revision i+2
	live      map[string]*mvccpb.KeyValue
	compact   int64
	published int64

	// chunkEvents bounds the events of a chunk of history; 0 is no bound. A
	// revision may be split.
	chunkEvents int
	failures    int   // calls of History that fail
	breakAfter  int   // chunks after which each call breaks; 0 never
	applied     int64 // what History's store has; 0 is everything
	moved       *sync.Cond
	requests    []*storepb.HistoryRequest
}

func newMemoryStore() *memoryStore {
	s := &memoryStore{live: make(map[string]*mvccpb.KeyValue), published: 1}
	s.moved = sync.NewCond(&s.mu)
	return s
}

type op struct {
	key    string
	value  string
	delete bool
}

func put(key, value string) op { return op{key: key, value: value} }
func del(key string) op        { return op{key: key, delete: true} }

func (s *memoryStore) current() int64 { return int64(len(s.revisions)) + 1 }

// write is one transaction; it returns its revision.
func (s *memoryStore) write(ops ...op) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &buspb.Revision{Revision: s.current() + 1}
	for _, o := range ops {
		old := s.live[o.key]
		if o.delete && old == nil {
			continue
		}
		ev := &buspb.Event{Key: []byte(o.key), Delete: o.delete}
		kv := &mvccpb.KeyValue{Key: []byte(o.key), ModRevision: r.Revision}
		if old != nil {
			ev.PrevKv = encode(old)
		}
		if o.delete {
			delete(s.live, o.key)
		} else {
			kv.Value, kv.CreateRevision, kv.Version = []byte(o.value), r.Revision, 1
			if old != nil {
				kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
			}
			s.live[o.key] = kv
		}
		ev.Kv = encode(kv)
		r.Events = append(r.Events, ev)
	}
	if len(r.Events) > 0 {
		s.revisions = append(s.revisions, r)
	}
	return s.current()
}

func encode(kv *mvccpb.KeyValue) []byte {
	b, err := proto.Marshal(kv)
	if err != nil {
		panic(err)
	}
	return b
}

// batch is what was written since the last batch, as the bus carries it.
func (s *memoryStore) batch() *buspb.Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &buspb.Batch{
		At: &logpb.LogID{Epoch: 1, Index: uint64(s.current())}, PrevRevision: s.published, Revision: s.current(),
		CompactRevision: s.compact, Revisions: s.revisions[s.published-1:],
	}
	s.published = b.Revision
	return b
}

func (s *memoryStore) compactTo(revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compact = revision
}

func (s *memoryStore) set(change func(*memoryStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
	s.moved.Broadcast()
}

func (s *memoryStore) has(revision int64) bool { return s.applied == 0 || s.applied >= revision }

// history is the store's service.
func (s *memoryStore) history(ctx context.Context, r *storepb.HistoryRequest) (watch.HistoryStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	if s.failures > 0 {
		s.failures--
		return nil, rpctypes.ErrGRPCStopped
	}
	stop := context.AfterFunc(ctx, s.moved.Broadcast)
	defer stop()
	for !s.has(r.MinRevision) && ctx.Err() == nil {
		s.moved.Wait()
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if r.From < s.compact {
		return nil, rpctypes.ErrGRPCCompacted
	}
	// Revision 1 is the empty store.
	return &memoryHistory{store: s, ctx: ctx, request: r, next: max(r.From, 2), left: s.breakAfter}, nil
}

type memoryHistory struct {
	store   *memoryStore
	ctx     context.Context
	request *storepb.HistoryRequest
	next    int64
	event   int // of revision next, to go on from
	left    int
}

func (h *memoryHistory) Recv() (*storepb.HistoryChunk, error) {
	s := h.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.ctx.Err() != nil {
		return nil, h.ctx.Err()
	}
	if s.breakAfter > 0 {
		if h.left == 0 {
			return nil, rpctypes.ErrGRPCStopped
		}
		h.left--
	}
	if h.next > h.request.To {
		return nil, io.EOF
	}
	if h.next < s.compact {
		return nil, rpctypes.ErrGRPCCompacted
	}
	chunk := &storepb.HistoryChunk{Revision: s.current(), CompactRevision: s.compact}
	for budget := s.chunkEvents; h.next <= h.request.To; h.next, h.event = h.next+1, 0 {
		out := &buspb.Revision{Revision: h.next}
		events := s.revisions[h.next-2].Events
		for ; h.event < len(events); h.event++ {
			if !inRange(h.request.Key, h.request.RangeEnd, events[h.event].Key) {
				continue
			}
			if s.chunkEvents > 0 && budget == 0 {
				break
			}
			budget--
			out.Events = append(out.Events, s.historic(events[h.event], h.next, h.request.PrevKv))
		}
		if len(out.Events) > 0 {
			chunk.Revisions = append(chunk.Revisions, out)
		}
		if h.event < len(events) {
			break
		}
	}
	chunk.Through = h.next - 1
	return chunk, nil
}

func (s *memoryStore) historic(ev *buspb.Event, revision int64, prev bool) *buspb.Event {
	if prev && revision-1 >= s.compact {
		return ev
	}
	return &buspb.Event{Key: ev.Key, Delete: ev.Delete, Kv: ev.Kv}
}

func inRange(key, end, k []byte) bool {
	switch {
	case len(end) == 0:
		return string(key) == string(k)
	case string(end) == "\x00":
		return string(k) >= string(key)
	}
	return string(k) >= string(key) && string(k) < string(end)
}

// seen is an event as tests compare it.
type seen struct {
	revision int64
	key      string
	delete   bool
	value    string
	prev     string
}

func (e seen) String() string {
	return fmt.Sprintf("%d:%s del=%v %.20q prev=%.20q", e.revision, e.key, e.delete, e.value, e.prev)
}

// expect is what a watcher of [key, end) must see from a revision on.
func (s *memoryStore) expect(key, end string, from int64, noPut, noDelete, prev bool) []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []seen
	for _, r := range s.revisions {
		for _, ev := range r.Events {
			if r.Revision < from || !inRange([]byte(key), []byte(end), ev.Key) || ev.Delete && noDelete || !ev.Delete && noPut {
				continue
			}
			var kv mvccpb.KeyValue
			must(proto.Unmarshal(ev.Kv, &kv))
			e := seen{revision: r.Revision, key: string(ev.Key), delete: ev.Delete, value: string(kv.Value)}
			if prev && len(ev.PrevKv) > 0 {
				var old mvccpb.KeyValue
				must(proto.Unmarshal(ev.PrevKv, &old))
				e.prev = string(old.Value)
			}
			all = append(all, e)
		}
	}
	return all
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func requireSeen(t *testing.T, got, want []seen) {
	t.Helper()
	if i := firstDifference(got, want); i >= 0 {
		at := func(s []seen) string {
			if i < len(s) {
				return s[i].String()
			}
			return "nothing"
		}
		t.Fatalf("event %d is %s, want %s (%d events, want %d)", i, at(got), at(want), len(got), len(want))
	}
}

func firstDifference(a, b []seen) int {
	if slices.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return cmp.Or(min(len(a), len(b)), 0)
}

package watch

import (
	"google.golang.org/grpc/mem"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/proto/buspb"
)

type state int

const (
	synced   state = iota // fed by dispatch
	unsynced              // waits for a reader
	reading               // belongs to a cohort
	victim                // waits for its stream's outbox to drain
	gone
	stateCount
)

// watcher is one watch of one stream. It belongs to the hub.
type watcher struct {
	stream  *stream
	id      int64
	idField mem.Buffer
	want    want

	state state
	// next is invariant 1's, but for a synced watcher, which is only sure to
	// have been given everything from next to current.
	next int64
	// progressFrom is the least revision that a progress response may speak of:
	// the start that was asked for, or what the created response said.
	progressFrom int64

	notify bool // wants periodic progress
	quiet  bool // had no event since the last tick of progress

	bucket *bucket[*watcher] // of the index, while synced
	slot   int               // in bucket
	cohort *cohort           // while reading

	matched []mem.Buffer // scratch of dispatch: this revision's events
}

// want is what a watcher wants to see; watchers that want the same share the
// work of finding it.
type want struct {
	span     span
	noPut    bool
	noDelete bool
	prev     bool
	fragment bool
}

func (w *want) takes(ev *buspb.Event) bool {
	if ev.Delete {
		return !w.noDelete
	}
	return !w.noPut
}

const (
	reasonEmptyRange  = "mvcc: watcher range is empty"
	reasonDuplicateID = "mvcc: duplicate watch ID provided on the WatchStream"
	invalidWatchID    = -1
)

// onCreate answers a create request, and then sees to the watcher's events.
func (h *Hub) onCreate(s *stream, r *pb.WatchCreateRequest, denied error) {
	revision := max(h.current, h.deps.Floor())
	w, reason := h.create(s, r, denied, revision)
	if reason != "" {
		h.answer(s, &pb.WatchResponse{Header: h.deps.Header(revision), WatchId: invalidWatchID, Created: true, Canceled: true, CancelReason: reason})
		return
	}
	h.answer(s, &pb.WatchResponse{Header: h.deps.Header(revision), WatchId: w.id, Created: true})
	s.watchers[w.id] = w
	if w.notify {
		h.notify(s)
	}
	switch {
	case w.next > h.current:
		h.becomeSynced(w)
	case w.next < h.compact:
		h.enter(w, unsynced)
		h.cancelCompacted(w)
	default:
		h.enter(w, unsynced)
		h.maybeCatchUpInline(w)
	}
}

// create makes the watcher, or says why not, in etcd's order of checks.
func (h *Hub) create(s *stream, r *pb.WatchCreateRequest, denied error, revision int64) (*watcher, string) {
	if r.StartRevision < 0 {
		return nil, rpctypes.ErrCompacted.Error()
	}
	if denied != nil {
		return nil, denied.Error()
	}
	key := r.Key
	if len(key) == 0 {
		key = []byte{0}
	}
	w := &watcher{stream: s, state: gone, next: r.StartRevision, progressFrom: r.StartRevision, notify: r.ProgressNotify, quiet: true}
	w.want = want{span: spanOf(key, r.RangeEnd), prev: r.PrevKv, fragment: r.Fragment}
	for _, f := range r.Filters {
		w.want.noPut = w.want.noPut || f == pb.WatchCreateRequest_NOPUT
		w.want.noDelete = w.want.noDelete || f == pb.WatchCreateRequest_NODELETE
	}
	if w.want.span.empty() {
		return nil, reasonEmptyRange
	}
	if _, used := s.watchers[r.WatchId]; used && r.WatchId != 0 {
		return nil, reasonDuplicateID
	}
	w.id = s.chooseID(r.WatchId)
	w.idField = idField(w.id)
	if w.next == 0 {
		w.next, w.progressFrom = revision+1, revision
	}
	return w, ""
}

// chooseID is the client's id, or the next automatic one that is free.
func (s *stream) chooseID(asked int64) int64 {
	if asked != 0 {
		return asked
	}
	for s.watchers[s.nextID] != nil {
		s.nextID++
	}
	s.nextID++
	return s.nextID - 1
}

// onCancel answers a cancel; one of an unknown id is not answered.
func (h *Hub) onCancel(s *stream, id int64) {
	w, ok := s.watchers[id]
	if !ok {
		return
	}
	h.forget(w)
	h.answer(s, &pb.WatchResponse{Header: h.deps.Header(max(h.current, h.deps.Floor())), WatchId: id, Canceled: true})
}

// cancelCompacted ends a watcher whose next events are compacted away.
func (h *Hub) cancelCompacted(w *watcher) {
	h.forget(w)
	h.answer(w.stream, &pb.WatchResponse{Header: h.deps.Header(0), WatchId: w.id, Canceled: true, CompactRevision: h.compact})
}

func (h *Hub) answer(s *stream, r *pb.WatchResponse) {
	m := controlMessage(r)
	h.put(s, response{message: m, bytes: m.bytes})
}

// enter moves a watcher to a state, out of the one that it is in.
func (h *Hub) enter(w *watcher, to state) {
	switch w.state {
	case synced:
		h.unindex(w)
	case unsynced:
		delete(h.unsynced, w)
	case reading:
		w.cohort.leave()
		w.cohort = nil
	}
	if w.state != gone {
		h.states[w.state]--
	}
	w.state = to
	if to != gone {
		h.states[to]++
	}
	if to == unsynced {
		h.unsynced[w] = struct{}{}
	}
}

// becomeSynced hands a watcher that has everything up to current to dispatch.
func (h *Hub) becomeSynced(w *watcher) {
	h.enter(w, synced)
	w.bucket = h.index.bucket(w.want.span)
	w.slot = len(w.bucket.items)
	w.bucket.items = append(w.bucket.items, w)
}

func (h *Hub) unindex(w *watcher) {
	b := w.bucket
	last := len(b.items) - 1
	b.items[w.slot] = b.items[last]
	b.items[w.slot].slot = w.slot
	b.items[last] = nil
	b.items = b.items[:last]
	if last == 0 {
		h.index.drop(b)
	}
	w.bucket = nil
}

// becomeVictim sets a watcher aside whose stream had no room for the events of
// revision next.
func (h *Hub) becomeVictim(w *watcher, next int64) {
	h.enter(w, victim)
	w.next = next
	w.stream.full = true
}

// onDrained lets the stream's victims catch up.
func (h *Hub) onDrained(s *stream) {
	s.full = false
	for _, w := range s.watchers {
		if w.state == victim {
			h.enter(w, unsynced)
		}
	}
}

func (h *Hub) forget(w *watcher) {
	h.enter(w, gone)
	delete(w.stream.watchers, w.id)
}

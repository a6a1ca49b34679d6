package watch

import (
	"sync/atomic"

	"google.golang.org/grpc/mem"

	"github.com/quartet-kv/quartet/proto/buspb"
)

// entry is one revision's events. Its encodings are made when first needed, by
// the hub or by a reader; making one twice is harmless.
type entry struct {
	revision int64
	events   []*buspb.Event
	bytes    int
	prevs    bool // some event has a prev_kv

	encoded [2]atomic.Pointer[[]mem.Buffer] // without and with prev_kv
}

// entryOverhead and eventOverhead are what an entry costs beside its bytes.
const (
	entryOverhead = 128
	eventOverhead = 256
)

func newEntry(r *buspb.Revision) *entry {
	e := &entry{revision: r.Revision, events: r.Events, bytes: entryOverhead}
	for _, ev := range r.Events {
		// As they came, and encoded both ways.
		e.bytes += eventOverhead + 3*len(ev.Kv) + 2*len(ev.PrevKv) + len(ev.Key)
		e.prevs = e.prevs || len(ev.PrevKv) > 0
	}
	return e
}

// buffers are the events encoded as fields of a WatchResponse, one buffer each.
func (e *entry) buffers(prev bool) []mem.Buffer {
	slot := &e.encoded[0]
	if prev && e.prevs {
		slot = &e.encoded[1]
	}
	if made := slot.Load(); made != nil {
		return *made
	}
	made := encodeEvents(e.events, prev)
	slot.Store(&made)
	return made
}

// ring is the recent entries, contiguous up to the newest revision.
type ring struct {
	entries  []*entry
	bytes    int
	bytesMax int
	// behind is the bytes of entries that were dropped but may still be
	// reachable in front of the slice.
	behind int
}

// append adds the next entry and lets the oldest go beyond the bound. Slices
// that were handed out stay as they are, so what is dropped cannot be cleared;
// instead the slice moves to new memory before half a ring is held in vain.
func (r *ring) append(e *entry) {
	r.entries = append(r.entries, e)
	r.bytes += e.bytes
	drop := 0
	for r.bytes > r.bytesMax && drop < len(r.entries) {
		r.bytes -= r.entries[drop].bytes
		r.behind += r.entries[drop].bytes
		drop++
	}
	r.entries = r.entries[drop:]
	if r.behind > r.bytesMax/2 {
		r.entries = append([]*entry(nil), r.entries...)
		r.behind = 0
	}
}

func (r *ring) clear() { r.entries, r.bytes, r.behind = nil, 0, 0 }

// from returns the entries of revisions from first on; false if the ring does
// not reach back that far. Current is the newest revision.
func (r *ring) from(first, current int64) ([]*entry, bool) {
	n := current - first + 1
	if n < 0 {
		n = 0
	}
	if n > int64(len(r.entries)) {
		return nil, false
	}
	return r.entries[int64(len(r.entries))-n:], true
}

// first is the oldest revision kept, current+1 if there is none.
func (r *ring) first(current int64) int64 { return current + 1 - int64(len(r.entries)) }

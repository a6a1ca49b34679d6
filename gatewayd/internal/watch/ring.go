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
		// Once as they came, once encoded.
		e.bytes += eventOverhead + 2*(len(ev.Kv)+len(ev.PrevKv)) + len(ev.Key)
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
}

// append adds the next entry and lets the oldest go beyond the bound. Slices
// that were handed out stay as they are.
func (r *ring) append(e *entry) {
	r.entries = append(r.entries, e)
	r.bytes += e.bytes
	drop := 0
	for r.bytes > r.bytesMax && drop < len(r.entries) {
		r.bytes -= r.entries[drop].bytes
		drop++
	}
	if drop == 0 {
		return
	}
	r.entries = r.entries[drop:]
	// The dropped entries stay reachable in front of the slice until append
	// moves it; do not let that wait for more than as many as are live.
	if cap(r.entries)-len(r.entries) > 2*len(r.entries)+1024 {
		r.entries = append([]*entry(nil), r.entries...)
	}
}

func (r *ring) clear() { r.entries, r.bytes = nil, 0 }

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

package publish

import (
	"sync"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/services/invariant"
	"github.com/quartet-kv/quartet/services/logid"
)

// RingBytesMaxDefault bounds what the ring's batches take.
const RingBytesMaxDefault = 32 << 20

// batchOverheadBytes is what a batch costs beside its events.
const batchOverheadBytes = 256

// Ring holds the recent batches.
type Ring struct {
	bytesMax int

	mu struct {
		sync.Mutex
		entries []ringEntry // the oldest first
		bytes   int
		end     *buspb.Batch  // the state after the last batch, as a heartbeat
		added   chan struct{} // closed and replaced when a batch is added
		publish bool
	}
}

type ringEntry struct {
	batch *buspb.Batch
	bytes int
}

// NewRing returns an empty ring at a state, told as a heartbeat.
func NewRing(bytesMax int, at *buspb.Batch) *Ring {
	if bytesMax <= 0 {
		bytesMax = RingBytesMaxDefault
	}
	r := &Ring{bytesMax: bytesMax}
	r.mu.end = at
	r.mu.added = make(chan struct{})
	return r
}

// Add appends a batch, whose events take about the given bytes. An empty one
// that goes nowhere only renews the state. Called by the apply loop.
func (r *Ring) Add(b *buspb.Batch, bytes int, publish bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	invariant.Check(b.PrevIndex == r.mu.end.At.Index, "batch after %d added at %d", b.PrevIndex, r.mu.end.At.Index)
	changed := r.mu.publish != publish
	r.mu.publish = publish
	r.mu.end = heartbeat(b)
	if b.At.Index > b.PrevIndex {
		r.mu.entries = append(r.mu.entries, ringEntry{b, bytes + batchOverheadBytes})
		r.mu.bytes += bytes + batchOverheadBytes
		r.trimLocked()
		changed = true
	}
	if changed {
		close(r.mu.added)
		r.mu.added = make(chan struct{})
	}
}

// trimLocked forgets the oldest batches, but for the last one.
func (r *Ring) trimLocked() {
	cut := 0
	for r.mu.bytes > r.bytesMax && cut < len(r.mu.entries)-1 {
		r.mu.bytes -= r.mu.entries[cut].bytes
		r.mu.entries[cut] = ringEntry{}
		cut++
	}
	r.mu.entries = r.mu.entries[cut:]
}

// heartbeat says the state after b, and nothing else.
func heartbeat(b *buspb.Batch) *buspb.Batch {
	return &buspb.Batch{
		ClusterId: b.ClusterId, At: b.At, PrevIndex: b.At.GetIndex(), PrevRevision: b.Revision, Revision: b.Revision,
		CompactRevision: b.CompactRevision, AuthRevision: b.AuthRevision, AlarmVersion: b.AlarmVersion, RaftTerm: b.RaftTerm,
	}
}

// view is what a reader finds after its position.
type view struct {
	batches []*buspb.Batch
	end     *buspb.Batch
	added   <-chan struct{}
	publish bool
	// behind: the ring no longer has what follows the position.
	behind bool
}

// batchesPerLook bounds what one look copies.
const batchesPerLook = 256

// after looks at what follows index.
func (r *Ring) after(index logid.Index) view {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := view{end: r.mu.end, added: r.mu.added, publish: r.mu.publish}
	if uint64(index) >= r.mu.end.At.GetIndex() {
		return v
	}
	entries := r.mu.entries
	if len(entries) == 0 || entries[0].batch.PrevIndex > uint64(index) {
		v.behind = true
		return v
	}
	// The first batch that ends beyond index; readers are mostly at the end.
	at := len(entries)
	for at > 0 && entries[at-1].batch.At.Index > uint64(index) {
		at--
	}
	for _, e := range entries[at:min(len(entries), at+batchesPerLook)] {
		v.batches = append(v.batches, e.batch)
	}
	return v
}

package deliver

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quartet-kv/quartet/consensusd/internal/membership"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/invariant"
	"github.com/quartet-kv/quartet/services/logid"
)

// Log is what the Hub reads; its methods may be called from many goroutines.
type Log interface {
	Entries(lo, hi, bytesMax uint64) ([]*raftpb.Entry, error)
	Term(index uint64) (uint64, error)
	FirstIndex() (uint64, error)
	LastIndex() (uint64, error)
}

// Limits of delivery.
const (
	// BatchBytesMax and batchEntriesMax bound one response; a single entry may
	// be larger.
	BatchBytesMax   = 1 << 20
	batchEntriesMax = 4096
	// ringBytesMax bounds the entries that are kept for streams at the end of
	// the log.
	ringBytesMax = 16 << 20
	// entryOverheadBytes is what an entry costs beside its payload.
	entryOverheadBytes = 96
	// storesMax bounds the names of stores that are remembered, and so the
	// streams.
	storesMax = 64
	// aheadWaitMax bounds the wait of a store whose position is beyond what is
	// known to be committed here.
	aheadWaitMax = 5 * time.Second
)

// Metrics are the Hub's.
type Metrics struct {
	Entries prometheus.Counter // delivered, all streams
	Streams prometheus.Gauge
}

// State is what a stream's responses say beside the entries.
type State struct {
	Commit, Term uint64
	// Publish tells the attached stores to publish.
	Publish bool
}

// Progress is how far the attached stores are.
type Progress struct {
	Attached bool
	// Applied is the furthest that an attached store has applied; 0 when none is
	// attached.
	Applied logid.Index
	// Synced is what every store that was ever attached since the start has
	// synced: nothing above it may be truncated. 0 when none was.
	Synced logid.Index
}

// Hub delivers one member's log.
type Hub struct {
	id       membership.Identity
	log      Log
	slog     *slog.Logger
	metrics  Metrics
	waitMax  time.Duration
	attached func() // called when a store attaches or detaches; must not block

	mu struct {
		sync.Mutex
		ready     uint64               // the last index that may be delivered
		ring      []*consensuspb.Entry // ends at ready
		ringBytes int
		state     State
		advanced  chan struct{} // closed and replaced when ready moves; nil unless awaited
		streams   map[*stream]struct{}
		stores    map[string]*storeProgress
	}
}

type storeProgress struct {
	streams         int
	applied, synced uint64
}

// NewHub starts at ready: entries up to it were committed before. attached is
// called, without blocking, when a store comes or goes.
func NewHub(id membership.Identity, log Log, ready uint64, attached func(), logger *slog.Logger, m Metrics) *Hub {
	h := &Hub{id: id, log: log, slog: logger, metrics: m, waitMax: aheadWaitMax, attached: attached}
	h.mu.ready = ready
	h.mu.state.Commit = ready
	h.mu.streams = make(map[*stream]struct{})
	h.mu.stores = make(map[string]*storeProgress)
	return h
}

// Advance adds committed entries, which follow those of the call before.
// Called by the raft loop.
func (h *Hub) Advance(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	converted := convert(entries)
	h.mu.Lock()
	defer h.mu.Unlock()
	invariant.Check(converted[0].Index == h.mu.ready+1, "delivery of %d after %d", converted[0].Index, h.mu.ready)
	h.mu.ready = converted[len(converted)-1].Index
	h.mu.state.Commit = max(h.mu.state.Commit, h.mu.ready)
	h.mu.ring = append(h.mu.ring, converted...)
	for _, e := range converted {
		h.mu.ringBytes += entryBytes(e)
	}
	h.trimRingLocked()
	if h.mu.advanced != nil {
		close(h.mu.advanced)
		h.mu.advanced = nil
	}
	h.wakeLocked()
}

// SetState says what idle stores should know too. Called by the raft loop.
func (h *Hub) SetState(s State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Commit = max(s.Commit, h.mu.state.Commit)
	if s == h.mu.state {
		return
	}
	h.mu.state = s
	h.wakeLocked()
}

// Progress is where the stores stand now.
func (h *Hub) Progress() Progress {
	h.mu.Lock()
	defer h.mu.Unlock()
	var p Progress
	first := true
	for _, s := range h.mu.stores {
		if s.streams > 0 {
			p.Attached = true
			p.Applied = max(p.Applied, logid.Index(s.applied))
		}
		if first || logid.Index(s.synced) < p.Synced {
			p.Synced = logid.Index(s.synced)
		}
		first = false
	}
	return p
}

// Ready is the last index that is delivered.
func (h *Hub) Ready() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.ready
}

// trimRingLocked forgets the oldest entries beyond the limit. The slice is
// copied when half of it is gone, so that each entry is moved once on average.
func (h *Hub) trimRingLocked() {
	ring, cut := h.mu.ring, 0
	for h.mu.ringBytes > ringBytesMax && cut < len(ring)-1 {
		h.mu.ringBytes -= entryBytes(ring[cut])
		ring[cut] = nil
		cut++
	}
	h.mu.ring = ring[cut:]
	if len(h.mu.ring) < cap(h.mu.ring)/4 {
		h.mu.ring = append(make([]*consensuspb.Entry, 0, 2*len(h.mu.ring)), h.mu.ring...)
	}
}

func (h *Hub) wakeLocked() {
	for s := range h.mu.streams {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// next returns the batch after pos and the state to send with it; no entries
// when the stream is up to date.
func (h *Hub) next(pos uint64) ([]*consensuspb.Entry, State, error) {
	h.mu.Lock()
	ready, state, ring := h.mu.ready, h.mu.state, h.mu.ring
	if pos >= ready {
		h.mu.Unlock()
		return nil, state, nil
	}
	if ringFirst := ready + 1 - uint64(len(ring)); pos+1 >= ringFirst {
		// Copied under the lock: trimming clears the slots of the ring.
		batch := clip(ring[pos+1-ringFirst:])
		h.mu.Unlock()
		return batch, state, nil
	}
	h.mu.Unlock()
	entries, err := h.log.Entries(pos+1, min(ready, pos+batchEntriesMax)+1, BatchBytesMax)
	if errors.Is(err, raft.ErrCompacted) {
		return nil, state, errs.ErrLogTruncated
	}
	if err != nil {
		return nil, state, err
	}
	return convert(entries), state, nil
}

// locate checks that id is a position of this log's history, waiting a while
// for it to be committed here.
func (h *Hub) locate(ctx context.Context, id logid.ID, cluster uint64) error {
	if cluster != 0 && cluster != h.id.Cluster || id.Index != 0 && uint64(id.Epoch) != h.id.Epoch {
		return errs.ErrLogMismatch
	}
	first, err := h.log.FirstIndex()
	if err != nil {
		return err
	}
	if uint64(id.Index)+1 < first {
		return errs.ErrLogTruncated
	}
	if id.Index == 0 {
		return nil
	}
	if err := h.waitReady(ctx, uint64(id.Index)); err != nil {
		return err
	}
	term, err := h.log.Term(uint64(id.Index))
	if errors.Is(err, raft.ErrCompacted) {
		return errs.ErrLogTruncated
	}
	if err != nil {
		return err
	}
	if term != uint64(id.Term) {
		return errs.ErrLogMismatch
	}
	return nil
}

// waitReady waits until index may be delivered. A store that is ahead of the
// log learns nothing but ErrNotReady: whether its position will ever be part of
// this history is not known.
func (h *Hub) waitReady(ctx context.Context, index uint64) error {
	timeout := time.NewTimer(h.waitMax)
	defer timeout.Stop()
	for {
		h.mu.Lock()
		if h.mu.ready >= index {
			h.mu.Unlock()
			return nil
		}
		if h.mu.advanced == nil {
			h.mu.advanced = make(chan struct{})
		}
		advanced := h.mu.advanced
		h.mu.Unlock()
		select {
		case <-advanced:
		case <-timeout.C:
			return errs.ErrNotReady
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// convert makes what is sent from what is stored, with one allocation for all.
// An entry that is not a payload of a client is delivered empty.
func convert(entries []*raftpb.Entry) []*consensuspb.Entry {
	rows := make([]consensuspb.Entry, len(entries))
	out := make([]*consensuspb.Entry, len(entries))
	for i, e := range entries {
		rows[i].Index, rows[i].Term = e.GetIndex(), e.GetTerm()
		if e.GetType() == raftpb.EntryNormal {
			rows[i].Payload = e.Data
		}
		out[i] = &rows[i]
	}
	return out
}

// clip copies the longest prefix within the limits of a batch, at least one.
func clip(entries []*consensuspb.Entry) []*consensuspb.Entry {
	size, n := 0, 0
	for n < len(entries) && n < batchEntriesMax {
		size += entryBytes(entries[n])
		if n > 0 && size > BatchBytesMax {
			break
		}
		n++
	}
	return append(make([]*consensuspb.Entry, 0, n), entries[:n]...)
}

func entryBytes(e *consensuspb.Entry) int { return len(e.Payload) + entryOverheadBytes }

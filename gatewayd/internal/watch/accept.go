package watch

import (
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/services/logid"
)

// accept takes what the bus says was applied: the revisions after prev up to
// revision. Those that the hub has are skipped, so a batch that comes twice or
// late changes nothing; those that are missing make a gap.
func (h *Hub) accept(epoch logid.Epoch, prev, revision, compact int64, revisions []*buspb.Revision) {
	if !h.begun || epoch != h.epoch {
		h.begin(epoch, prev, compact)
	}
	for len(revisions) > 0 && revisions[0].Revision <= h.current {
		revisions = revisions[1:]
	}
	switch {
	case revision <= h.current:
	case prev > h.current || !contiguous(revisions, h.current, revision):
		h.skip(revision)
	default:
		h.take(revisions)
	}
	if compact > h.compact {
		h.compactTo(compact)
	}
	h.answerWaiting()
}

// take gives the next revisions to the watchers.
func (h *Hub) take(revisions []*buspb.Revision) {
	bytes := 0
	for i, r := range revisions {
		e := newEntry(r)
		h.ring.append(e)
		h.current = r.Revision
		h.dispatchEntry(e)
		if bytes += e.bytes; bytes >= wakeBytesMax || (i+1)%wakeEntriesMax == 0 {
			h.wake()
			bytes = 0
		}
	}
}

// contiguous tells whether the revisions are all those after current up to last.
func contiguous(revisions []*buspb.Revision, current, last int64) bool {
	for _, r := range revisions {
		if current++; r.Revision != current {
			return false
		}
	}
	return current == last
}

// begin starts at a revision, in an epoch. Streams of an earlier epoch watched a
// history that was rewritten by hand, so there is nothing to go on from.
func (h *Hub) begin(epoch logid.Epoch, revision, compact int64) {
	for s := range h.streams {
		s.out.end(rpctypes.ErrGRPCWatchCanceled)
		for _, w := range s.watchers {
			h.forget(w)
		}
	}
	h.ring.clear()
	h.begun, h.epoch, h.current, h.compact = true, epoch, revision, compact
}

// skip moves current past revisions whose events the hub does not get. Watchers
// that may want them read them from history.
func (h *Hub) skip(revision int64) {
	h.metrics.gaps.Inc()
	for s := range h.streams {
		for _, w := range s.watchers {
			if w.state != synced {
				continue
			}
			if next := max(w.next, h.current+1); next <= revision {
				h.enter(w, unsynced)
				w.next = next
			}
		}
	}
	h.ring.clear()
	h.current = revision
}

// compactTo ends the watchers that are behind the compaction, but for those that
// the ring still serves and those that a reader is on: its store may have let
// them through, and says so if not.
func (h *Hub) compactTo(compact int64) {
	h.compact = compact
	first := h.ring.first(h.current)
	for s := range h.streams {
		for _, w := range s.watchers {
			if (w.state == unsynced || w.state == victim) && w.next < min(compact, first) {
				h.cancelCompacted(w)
			}
		}
	}
}

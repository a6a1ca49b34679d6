package watch

import "github.com/quartet-kv/quartet/services/invariant"

// checkedWatchersMax bounds what check walks after every step of the hub.
const checkedWatchersMax = 200

// check asserts the invariants of doc.go that can be seen from one place.
func (h *Hub) check() {
	for i, e := range h.ring.entries {
		invariant.Check(e.revision == h.ring.first(h.current)+int64(i), "entry %d of the ring is revision %d, current %d", i, e.revision, h.current)
	}
	var states [stateCount]int
	all := 0
	for s := range h.streams {
		if all += len(s.watchers); all > checkedWatchersMax {
			return
		}
		for id, w := range s.watchers {
			states[w.state]++
			invariant.Check(w.id == id && w.stream == s, "watcher %d is filed as %d", w.id, id)
			h.checkWatcher(w)
		}
	}
	invariant.Check(states == h.states, "watchers by state are %v, counted %v", states, h.states)
	invariant.Check(len(h.unsynced) == states[unsynced], "%d unsynced of %d", len(h.unsynced), states[unsynced])
}

func (h *Hub) checkWatcher(w *watcher) {
	invariant.Check((w.bucket != nil) == (w.state == synced), "watcher %d in state %d, in the index: %v", w.id, w.state, w.bucket != nil)
	invariant.Check((w.cohort != nil) == (w.state == reading), "watcher %d in state %d, in a cohort: %v", w.id, w.state, w.cohort != nil)
	switch w.state {
	case synced:
		invariant.Check(w.bucket.items[w.slot] == w, "watcher %d is not where the index has it", w.id)
	case victim:
		invariant.Check(w.stream.full, "watcher %d waits for an outbox that is not full", w.id)
		invariant.Check(w.next <= h.current, "watcher %d waits for revision %d, current %d", w.id, w.next, h.current)
	case unsynced:
		_, filed := h.unsynced[w]
		invariant.Check(filed && w.next <= h.current, "watcher %d waits for revision %d, current %d, filed %v", w.id, w.next, h.current, filed)
	case reading:
		// What a reader gave last may be all there is.
		invariant.Check(w.next <= w.cohort.to+1 && w.next <= h.current+1, "watcher %d reads revision %d of %d, current %d", w.id, w.next, w.cohort.to, h.current)
	case gone:
		invariant.Check(false, "watcher %d is gone and filed", w.id)
	}
}

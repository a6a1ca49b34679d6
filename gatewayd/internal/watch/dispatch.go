package watch

import (
	"google.golang.org/grpc/mem"
)

// sharedIDsMax bounds the watch ids for which a whole response is shared by the
// watchers of different streams; beyond it they share its parts.
const sharedIDsMax = 256

// dispatchState is memory that dispatching one entry after another reuses.
type dispatchState struct {
	header  mem.Buffer // of this entry's responses; nil until one is made
	touched []*watcher
	refused []*watcher
	// shared are this entry's responses with all of its events, by watch id;
	// without and with prev_kv.
	shared [2][]*Message
	events int // given to watchers
}

// dispatchEntry gives an entry to the synced watchers that want it.
func (h *Hub) dispatchEntry(e *entry) {
	d := &h.dispatch
	if len(e.events) == 1 {
		h.index.visit(e.events[0].Key, func(b *bucket[*watcher]) { h.dispatchOne(e, b) })
	} else {
		h.dispatchMany(e)
	}
	for _, w := range d.refused {
		h.metrics.refused.Inc()
		h.becomeVictim(w, e.revision)
	}
	h.metrics.given(d.events)
	clear(d.shared[0])
	clear(d.shared[1])
	clear(d.touched)
	clear(d.refused)
	*d = dispatchState{touched: d.touched[:0], refused: d.refused[:0], shared: [2][]*Message{d.shared[0][:0], d.shared[1][:0]}}
}

func (h *Hub) dispatchOne(e *entry, b *bucket[*watcher]) {
	for _, w := range b.items {
		if w.next <= e.revision && w.want.takes(e.events[0]) {
			h.give(w, e, e.buffers(w.want.prev))
		}
	}
}

// dispatchMany gathers a transaction's events per watcher first, for they go
// out in one response.
func (h *Hub) dispatchMany(e *entry) {
	d := &h.dispatch
	for i, ev := range e.events {
		h.index.visit(ev.Key, func(b *bucket[*watcher]) {
			for _, w := range b.items {
				if w.next > e.revision || !w.want.takes(ev) {
					continue
				}
				if len(w.matched) == 0 {
					d.touched = append(d.touched, w)
				}
				w.matched = append(w.matched, e.buffers(w.want.prev)[i])
			}
		})
	}
	for _, w := range d.touched {
		h.give(w, e, w.matched)
		clear(w.matched)
		w.matched = w.matched[:0]
	}
}

// give offers a synced watcher its events of one revision.
func (h *Hub) give(w *watcher, e *entry, events []mem.Buffer) {
	d := &h.dispatch
	if w.stream.full {
		d.refused = append(d.refused, w)
		return
	}
	if d.header == nil {
		d.header = headerField(h.deps.Header(e.revision))
	}
	if !h.offer(w.stream, h.responseOf(w, e, events)) {
		w.stream.full = true
		d.refused = append(d.refused, w)
		return
	}
	w.quiet = false
	d.events += len(events)
}

// responseOf makes the response, or takes the one that was made for another
// stream's watcher of the same id.
func (h *Hub) responseOf(w *watcher, e *entry, events []mem.Buffer) response {
	d := &h.dispatch
	if len(events) < len(e.events) || w.want.fragment || w.id < 0 || w.id >= sharedIDsMax {
		return respond(d.header, w.idField, events, h.fragmentBytes(w))
	}
	variant := 0
	if w.want.prev && e.prevs {
		variant = 1
	}
	made := d.shared[variant]
	for int64(len(made)) <= w.id {
		made = append(made, nil)
	}
	d.shared[variant] = made
	if made[w.id] == nil {
		made[w.id] = newMessage(d.header, w.idField, false, events)
	}
	return response{message: made[w.id], bytes: made[w.id].bytes, events: len(events)}
}

// fragmentBytes is the size from which the watcher's responses are cut; 0 never.
func (h *Hub) fragmentBytes(w *watcher) int {
	if !w.want.fragment {
		return 0
	}
	return h.cfg.RequestBytesMax + fragmentOverheadBytes
}

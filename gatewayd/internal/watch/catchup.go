package watch

import (
	"context"
	"errors"

	"google.golang.org/grpc/mem"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// cohort is watchers that catch up together: one reader reads [from, to] for all
// of them. Watchers that want the same from the same revision on are one group
// and share what is made for them.
//
// Groups and bounds do not change once a reader has the cohort; who is still a
// member (watcher.cohort) is the hub's to know.
type cohort struct {
	groups   []*group
	index    *index[*group] // nil for few groups
	span     span           // the least that covers all
	prev     bool           // some group wants prev_kv
	from, to int64
	entries  []*entry // what to read, if the ring has it; nil reads history

	members int
	stop    context.CancelFunc // of the reader
}

type group struct {
	want     want
	next     int64
	watchers []*watcher
	gather   gather
}

// groupsLinearMax is how many groups are searched one by one.
const groupsLinearMax = 8

// leave takes one member out; a reader for nobody stops.
func (c *cohort) leave() {
	if c.members--; c.members == 0 && c.stop != nil {
		c.stop()
	}
}

// maybeRead starts readers for the unsynced watchers, as many as there may be.
func (h *Hub) maybeRead() {
	if len(h.unsynced) == 0 || len(h.cohorts) >= h.cfg.HistoryReadersMax || h.deps.Clock.Now() < h.retryAt {
		return
	}
	for len(h.cohorts) < h.cfg.HistoryReadersMax {
		c := h.chooseCohort()
		if c == nil {
			return
		}
		h.startReader(c)
	}
}

// chooseCohort takes the unsynced watchers around the one that is furthest
// behind; every other time around any of them, so that none waits for ever
// behind new ones from far back. Those of a full stream are set aside.
func (h *Hub) chooseCohort() *cohort {
	first := h.ring.first(h.current)
	var pivot *watcher
	for w := range h.unsynced {
		switch {
		case w.stream.full:
			h.becomeVictim(w, w.next)
		case w.next < min(h.compact, first):
			h.cancelCompacted(w)
		case pivot == nil || h.lowest && w.next < pivot.next:
			pivot = w
		}
	}
	h.lowest = !h.lowest
	if pivot == nil {
		return nil
	}
	low, to := pivot.next, h.current
	last := to
	if low < first {
		to = min(first-1, low+readRevisionsMax-1)
		last = min(to, low+cohortSpread)
	}
	var members []*watcher
	for w := range h.unsynced {
		if w.next >= low && w.next <= last {
			members = append(members, w)
		}
	}
	c := h.newCohort(members, low, to)
	if low >= first {
		c.entries, _ = h.ring.from(low, h.current)
	}
	return c
}

// newCohort makes the watchers members of a cohort.
func (h *Hub) newCohort(members []*watcher, from, to int64) *cohort {
	type key struct {
		want want
		next int64
	}
	c := &cohort{from: from, to: to, span: members[0].want.span, members: len(members)}
	groups := make(map[key]*group)
	for _, w := range members {
		h.enter(w, reading)
		w.cohort = c
		k := key{w.want, w.next}
		g, ok := groups[k]
		if !ok {
			g = &group{want: w.want, next: w.next}
			groups[k] = g
			c.groups = append(c.groups, g)
			c.span = c.span.hull(w.want.span)
			c.prev = c.prev || w.want.prev
		}
		g.watchers = append(g.watchers, w)
	}
	if len(c.groups) > groupsLinearMax {
		c.index = newIndex[*group]()
		for _, g := range c.groups {
			b := c.index.bucket(g.want.span)
			b.items = append(b.items, g)
		}
	}
	return c
}

// catchUpInline brings a new watcher up to current from the ring, if that is a
// short way; else it waits for a reader.
func (h *Hub) maybeCatchUpInline(w *watcher) {
	if entries, ok := h.ring.from(w.next, h.current); ok && len(entries) <= inlineEntriesMax {
		h.joinSynced(h.newCohort([]*watcher{w}, w.next, w.next-1))
	}
}

func (h *Hub) startReader(c *cohort) {
	ctx, cancel := context.WithCancel(h.runCtx)
	c.stop = cancel
	h.cohorts[c] = struct{}{}
	h.readers.Go(func() {
		defer cancel()
		h.read(ctx, c)
	})
}

// onResult gives the cohort's members what their reader found, and ends the
// cohort after the last.
func (h *Hub) onResult(r result) {
	c := r.cohort
	if r.matched != nil {
		h.giveMatched(c, r.matched, r.through)
	}
	if !r.done {
		return
	}
	delete(h.cohorts, c)
	if r.err != nil {
		h.onReadFailed(c, r.err)
		return
	}
	h.failing = false
	h.joinSynced(c)
}

// onReadFailed lets the members wait for another reader, but for those that are
// known to be behind the compaction. If the store knows of a compaction before
// the bus has told, they wait for the bus.
func (h *Hub) onReadFailed(c *cohort, err error) {
	compacted := errors.Is(err, rpctypes.ErrGRPCCompacted)
	ended, left := 0, 0
	for _, g := range c.groups {
		for _, w := range g.watchers {
			if w.cohort != c {
				continue
			}
			h.enter(w, unsynced)
			if compacted && w.next < h.compact {
				h.cancelCompacted(w)
				ended++
			} else {
				left++
			}
		}
	}
	if left == 0 || ended > 0 {
		return // nobody is left, or the rest may go on at once
	}
	h.retryAt = h.deps.Clock.Now() + h.cfg.HistoryRetry
	h.metrics.historyFailures.Inc()
	if !h.failing {
		h.failing = true
		h.deps.Log.Warn("read history for watchers", "revision", c.from, "err", err)
	}
}

// joinSynced makes members that have read up to c.to synced, after the few
// entries that came meanwhile; if they are many or not in the ring, the members
// wait for another reader.
func (h *Hub) joinSynced(c *cohort) {
	entries, ok := h.ring.from(c.to+1, h.current)
	ok = ok && len(entries) <= inlineEntriesMax
	if ok && len(entries) > 0 {
		h.giveMatched(c, c.match(entries), h.current)
	}
	for _, g := range c.groups {
		for _, w := range g.watchers {
			switch {
			case w.cohort != c:
			case ok:
				h.becomeSynced(w)
			default:
				h.enter(w, unsynced)
			}
		}
	}
}

// giveMatched offers the members what was found for their groups up to through.
// As in etcd the header says the current revision, not the last event's.
func (h *Hub) giveMatched(c *cohort, matched [][]catchUp, through int64) {
	var header mem.Buffer
	for i, g := range c.groups {
		for _, found := range matched[i] {
			if header == nil {
				header = headerField(h.deps.Header(h.current))
			}
			h.giveGroup(c, g, found, header)
		}
		for _, w := range g.watchers {
			if w.cohort == c {
				w.next = max(w.next, through+1)
			}
		}
	}
}

func (h *Hub) giveGroup(c *cohort, g *group, found catchUp, header mem.Buffer) {
	var made response
	madeFor := int64(-1)
	given := 0
	for _, w := range g.watchers {
		if w.cohort != c {
			continue
		}
		if madeFor != w.id {
			made, madeFor = respond(header, w.idField, found.events, h.fragmentBytes(w)), w.id
			made.events = found.count
		}
		if w.stream.full || !h.offer(w.stream, made) {
			h.metrics.refused.Inc()
			h.becomeVictim(w, found.first)
			continue
		}
		w.quiet = false
		given += found.count
	}
	h.metrics.given(given)
}

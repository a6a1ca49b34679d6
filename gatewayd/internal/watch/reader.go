package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/storepb"
)

// readEntriesMax bounds the entries of the ring that a reader matches before it
// hands over what it found.
const readEntriesMax = 2000

// result is what a reader hands to the hub.
type result struct {
	cohort *cohort
	// matched is what was found up to through, per group; nil in a result that
	// only ends the cohort.
	matched [][]catchUp
	through int64
	done    bool
	err     error // with done: nothing after through was read
}

// catchUp is the events of one response to a watcher that is behind: whole
// revisions, the first of which is first.
type catchUp struct {
	first  int64
	events []mem.Buffer // joined into one, unless they may be cut in pieces
	count  int
}

// gather is what is being found for one group.
type gather struct {
	found []catchUp
	catchUp
	last      int64 // the revision of the newest event
	revisions int
	bytes     int
}

// read reads for a cohort until its end, and says so.
func (h *Hub) read(ctx context.Context, c *cohort) {
	var err error
	if c.entries != nil {
		err = h.readRing(ctx, c)
	} else {
		err = h.readHistory(ctx, c)
	}
	// The hub takes results until it stops, and then waits for nobody's.
	select {
	case h.results <- result{cohort: c, done: true, err: err}:
	case <-h.stopping:
	}
}

func (h *Hub) handOver(ctx context.Context, r result) error {
	select {
	case h.results <- r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *Hub) readRing(ctx context.Context, c *cohort) error {
	for entries := c.entries; len(entries) > 0; {
		n := min(readEntriesMax, len(entries))
		r := result{cohort: c, matched: c.match(entries[:n]), through: entries[n-1].revision}
		if err := h.handOver(ctx, r); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

var errStalled = errors.New("watch: the store sent no history in time")

// readHistory reads at a store. A store that stays silent is given up.
func (h *Hub) readHistory(ctx context.Context, c *cohort) error {
	h.metrics.historyReads.Inc()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(h.cfg.HistoryStallMax, func() { cancel(errStalled) })
	defer watchdog.Stop()

	key, end := c.span.wire()
	from, err := h.deps.History(ctx, &storepb.HistoryRequest{
		Key: key, RangeEnd: end, From: c.from, To: c.to, PrevKv: c.prev, MinRevision: c.to,
	})
	if err != nil {
		return err
	}
	p := pages{next: c.from, to: c.to}
	for p.next <= c.to {
		chunk, err := from.Recv()
		if err != nil {
			return historyError(ctx, err)
		}
		entries, err := p.turn(chunk)
		if err != nil {
			return err
		}
		// The hub's own pace is not the store's.
		watchdog.Stop()
		if err := h.handOver(ctx, result{cohort: c, matched: c.match(entries), through: p.next - 1}); err != nil {
			return err
		}
		watchdog.Reset(h.cfg.HistoryStallMax)
	}
	return nil
}

func historyError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// pages turns chunks of history into entries. A store may send a large
// transaction in several chunks; its parts are held back until it is whole, and
// then come out together, as several entries of one revision.
type pages struct {
	next, to int64 // what is still to come
	held     []*buspb.Revision
}

// turn returns the entries that the chunk completes.
func (p *pages) turn(chunk *storepb.HistoryChunk) ([]*entry, error) {
	for _, r := range chunk.Revisions {
		if r.Revision < p.next || len(p.held) > 0 && r.Revision < p.held[len(p.held)-1].Revision {
			return nil, fmt.Errorf("watch: history went back to revision %d", r.Revision)
		}
		p.held = append(p.held, r)
	}
	var entries []*entry
	for len(p.held) > 0 && p.held[0].Revision <= chunk.Through {
		if p.held[0].Revision <= p.to {
			entries = append(entries, newEntry(p.held[0]))
		}
		p.held = p.held[1:]
	}
	p.next = max(p.next, min(chunk.Through, p.to)+1)
	return entries, nil
}

// match finds what each group wants of the entries, cut into responses.
func (c *cohort) match(entries []*entry) [][]catchUp {
	for _, e := range entries {
		for i, ev := range e.events {
			c.visit(ev.Key, func(g *group) {
				if g.next <= e.revision && g.want.takes(ev) {
					g.gather.add(e.revision, e.buffers(g.want.prev)[i], g.want.fragment)
				}
			})
		}
	}
	matched := make([][]catchUp, len(c.groups))
	for i, g := range c.groups {
		g.gather.cut(g.want.fragment)
		matched[i] = g.gather.found
		g.gather = gather{}
	}
	return matched
}

func (c *cohort) visit(key []byte, f func(*group)) {
	if c.index != nil {
		c.index.visit(key, func(b *bucket[*group]) {
			for _, g := range b.items {
				f(g)
			}
		})
		return
	}
	for _, g := range c.groups {
		if g.want.span.holds(key) {
			f(g)
		}
	}
}

// add takes the group's next event; a new revision may begin a new response.
func (g *gather) add(revision int64, ev mem.Buffer, fragment bool) {
	if revision != g.last {
		if g.revisions == catchUpRevisionsMax || g.bytes >= catchUpBytesMax {
			g.cut(fragment)
		}
		if g.count == 0 {
			g.first = revision
		}
		g.last = revision
		g.revisions++
	}
	g.events = append(g.events, ev)
	g.count++
	g.bytes += ev.Len()
}

// cut ends the response that is being gathered.
func (g *gather) cut(fragment bool) {
	if g.count == 0 {
		return
	}
	if !fragment {
		g.events = append(g.events[:0], join(g.events))
	}
	g.found = append(g.found, g.catchUp)
	*g = gather{found: g.found}
}

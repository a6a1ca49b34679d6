package keyspace

import (
	"math"
	"sync"
)

// Defaults and limits.
const (
	// BudgetBytesDefault is how much memory keys, values and their overhead
	// may take before the ordered copy is given up.
	BudgetBytesDefault = 256 << 20
	// RecentMaxDefault is how many creates and deletes are remembered, so that
	// readers can tell what changed since the revision that they read at.
	RecentMaxDefault = 1 << 16
	// ChunkMax is how many items one call of Chunk returns at most, which
	// bounds how long it keeps the writer waiting.
	ChunkMax = 1000
	// evictTries bounds how long one command looks for something to evict.
	evictTries = 256
	// fillChunk is how many items Fill takes under one lock.
	fillChunk = 128
)

// Config of a Keyspace. Zero fields take the defaults.
type Config struct {
	// BudgetBytes bounds Bytes(), but for what is pinned.
	BudgetBytes int64
	// RecentMax bounds the creates and deletes remembered.
	RecentMax int
}

// Item is the current generation of a key. Version 0 means that the key does
// not exist; Mod is then the revision that deleted it. The bytes are shared
// with every reader and never change.
type Item struct {
	Key     []byte
	Value   []byte
	Create  int64
	Mod     int64
	Version int64
	Lease   int64
}

// Exists tells whether the key is there.
func (i *Item) Exists() bool { return i.Version != 0 }

// Keyspace is the current generation of all keys, within a budget.
type Keyspace struct {
	config Config
	mu     struct {
		sync.RWMutex
		state
	}
	writer Writer
}

// state is all that the lock guards.
type state struct {
	revision  int64
	committed int64
	bytes     int64

	items map[string]*entry
	// live and dead are the existing keys and the remembered ones that went, in
	// order; nil once the budget is spent.
	live, dead *order
	recent     recent
	// forgotten is the highest revision of which a create or delete may not be
	// remembered: a reader below it is told nothing.
	forgotten int64

	filled bool
	cursor string // all keys below were filled
	stale  []*entry

	// evictable are the entries of a partial keyspace, longest there first.
	evictable queue
}

// New returns an empty, incomplete Keyspace at revision 0. It knows no key to
// be absent before Fill has passed it.
func New(c Config) *Keyspace {
	if c.BudgetBytes <= 0 {
		c.BudgetBytes = BudgetBytesDefault
	}
	if c.RecentMax <= 0 {
		c.RecentMax = RecentMaxDefault
	}
	k := &Keyspace{config: c}
	k.writer.k = k
	k.Reset()
	return k
}

// Reset forgets everything, as New.
func (k *Keyspace) Reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.state = state{
		items:  make(map[string]*entry),
		live:   &order{},
		dead:   &order{},
		recent: recent{max: k.config.RecentMax},
	}
}

// Revision is that of the last Commit.
func (k *Keyspace) Revision() int64 {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.mu.revision
}

// Complete tells whether every key is known: filled and within the budget.
func (k *Keyspace) Complete() bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.mu.complete()
}

func (s *state) complete() bool { return s.filled && !s.partial() }

// partial tells whether the budget was spent.
func (s *state) partial() bool { return s.live == nil }

// Bytes is the memory that keys, values and their overhead take.
func (k *Keyspace) Bytes() int64 {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.mu.bytes
}

// Get returns the key and the revision at which that holds. If known is false,
// ask the engine; if known and not Exists, there is no such key.
func (k *Keyspace) Get(key []byte) (it Item, revision int64, known bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	it, known = k.mu.get(key)
	return it, k.mu.revision, known
}

func (s *state) get(key []byte) (it Item, known bool) {
	if e := s.items[string(key)]; e != nil {
		if s.partial() && !e.used.Load() {
			e.used.Store(true)
		}
		return e.item(), true
	}
	if s.partial() || !s.filled && string(key) >= s.cursor {
		return Item{}, false
	}
	return Item{}, true
}

// covers tells whether all keys of a range that ends at hi are known.
func (s *state) covers(hi bound) bool {
	return !s.partial() && (s.filled || hi.set && hi.key <= s.cursor)
}

// answers tells whether a question about a range at revision at (0: now) can
// be answered, and at which revision.
func (s *state) answers(hi bound, at int64) (revision int64, known bool) {
	if at == 0 {
		at = s.revision
	}
	return at, s.covers(hi) && at >= s.forgotten && at <= s.revision
}

// Chunk appends to items, up to ChunkMax and max, those of [lo, hi) in order,
// and says at which revision they were read. Pass at 0 to read at the present
// revision, and what was returned, with lo moved beyond the last key, for the
// next chunk; more tells that there is one.
//
// Items with Mod > at changed since: what the key held at revision at (perhaps
// nothing) must be asked of the engine. Keys deleted since are among them
// (Exists is false). known is false if the range, or what changed in it since
// at, is not known: read all of it from the engine.
func (k *Keyspace) Chunk(lo, hi []byte, at int64, max int, items []Item) (out []Item, revision int64, more, known bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	end := upper(hi)
	at, known = k.mu.answers(end, at)
	if !known {
		return items, at, false, false
	}
	items, more = k.mu.chunk(text(lo), end, at, min(max, ChunkMax), items)
	return items, at, more, true
}

// chunk merges the living and those that went after at.
func (s *state) chunk(lo string, hi bound, at int64, n int, items []Item) (out []Item, more bool) {
	live, dead := s.live.find(lo), s.dead.find(lo)
	for {
		a := s.live.at(live)
		var b *entry
		if at < s.revision {
			for b = s.dead.at(dead); b != nil && b.mod <= at; b = s.dead.at(dead) {
				dead = s.dead.next(dead)
			}
		}
		e := a
		if a == nil || b != nil && b.key < a.key {
			e = b
		}
		if e == nil || hi.above(e.key) {
			return items, false
		}
		if n <= 0 {
			return items, true
		}
		n--
		items = append(items, e.item())
		if e == a {
			live = s.live.next(live)
		} else {
			dead = s.dead.next(dead)
		}
	}
}

// Count of the keys that existed in [lo, hi) at revision at (0: the present
// one), without a walk.
func (k *Keyspace) Count(lo, hi []byte, at int64) (n, revision int64, known bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	end := upper(hi)
	at, known = k.mu.answers(end, at)
	if !known {
		return 0, at, false
	}
	from := text(lo)
	if end.set && end.key <= from {
		return 0, at, true
	}
	return int64(k.mu.live.count(from, end) - k.mu.recent.since(at, from, end)), at, true
}

// Committed says that everything up to revision can be read from the engine
// (or that there is none), so that it need not be kept for want of memory.
func (k *Keyspace) Committed(revision int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.committed = max(k.mu.committed, revision)
	k.mu.spend(k.config.BudgetBytes)
}

// spend keeps within the budget: it first gives the order up, then evicts what
// the engine has and nobody asked for lately.
func (s *state) spend(budget int64) {
	if s.bytes <= budget {
		return
	}
	if !s.partial() {
		s.giveUp()
	}
	for tries := evictTries; tries > 0 && s.bytes > budget && s.evictable.n > 0; tries-- {
		e := s.evictable.pop()
		switch {
		case s.items[e.key] != e:
		case e.mod > s.committed || e.used.Swap(false):
			s.evictable.push(e)
		default:
			delete(s.items, e.key)
			s.bytes -= e.bytes()
		}
	}
}

// giveUp makes the keyspace partial.
func (s *state) giveUp() {
	s.live.all(s.evictable.push)
	s.dead.all(s.evictable.push)
	s.live, s.dead, s.stale = nil, nil, nil
	s.recent = recent{}
	s.forgotten = math.MaxInt64
}

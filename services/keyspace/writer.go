package keyspace

// Writer is one command being applied. Get one from Begin.
type Writer struct{ k *Keyspace }

// Begin opens one command and locks readers out until its Commit. One goroutine
// writes. Call nothing but the Writer's methods in between.
func (k *Keyspace) Begin() *Writer {
	k.mu.Lock()
	return &k.writer
}

// Get returns the key as the command sees it, its own writes included. If
// known is false, ask the engine; if known and not Exists, there is no such
// key.
func (w *Writer) Get(key []byte) (it Item, known bool) { return w.k.mu.get(key) }

// Put sets the item of a key. The keyspace keeps the slices, so give it bytes
// that pin nothing larger; a key that is known already keeps its old bytes.
// Mod is the revision of this command, and Create the same if the key did not
// exist before.
func (w *Writer) Put(it Item) {
	s := &w.k.mu.state
	e := s.items[string(it.Key)]
	if e == nil {
		e = s.enter(&it)
		if it.Create == it.Mod {
			s.remember(e, 1, it.Mod)
		}
		return
	}
	existed := e.exists()
	s.bytes += int64(len(it.Value) - len(e.value))
	e.set(&it)
	if !existed && !s.partial() {
		s.dead.remove(e)
		s.live.insert(e)
		s.remember(e, 1, it.Mod)
	}
}

// enter makes an entry for a key that has none.
func (s *state) enter(it *Item) *entry {
	e := &entry{key: text(it.Key)}
	e.set(it)
	s.items[e.key] = e
	s.bytes += e.bytes()
	switch {
	case s.partial():
		s.evictable.push(e)
	case e.exists():
		s.live.insert(e)
	default:
		s.dead.insert(e)
	}
	return e
}

// Delete says that the key, which existed, went with this revision.
func (w *Writer) Delete(key []byte, revision int64) {
	s := &w.k.mu.state
	gone := Item{Key: key, Mod: revision}
	e := s.items[string(key)]
	switch {
	case e == nil:
		e = s.enter(&gone)
	case !e.exists():
		return
	default:
		if !s.partial() {
			s.live.remove(e)
			s.dead.insert(e)
		}
		s.bytes -= int64(len(e.value))
		e.set(&gone)
	}
	s.remember(e, -1, revision)
}

// remember notes that a key came or went, and forgets the oldest such note if
// there are too many.
func (s *state) remember(e *entry, delta int, revision int64) {
	if s.partial() {
		return
	}
	old, full := s.recent.push(existence{entry: e, revision: revision, delta: delta})
	if !full {
		return
	}
	s.forgotten = max(s.forgotten, old.revision)
	switch {
	case old.delta > 0 || old.entry.exists() || old.entry.mod != old.revision:
	case s.filled:
		s.bury(old.entry)
	default:
		s.stale = append(s.stale, old.entry) // the fill must not bring it back
	}
}

// bury forgets a key that went, unless readers may still ask what went since.
func (s *state) bury(e *entry) {
	if s.items[e.key] != e || e.exists() || e.mod > s.forgotten {
		return
	}
	s.dead.remove(e)
	delete(s.items, e.key)
	s.bytes -= e.bytes()
}

// Learn keeps what the engine said about a key that Get did not know, so that
// the next Get does, if there is room.
func (w *Writer) Learn(it Item) {
	s := &w.k.mu.state
	if it.Exists() && s.items[string(it.Key)] == nil {
		s.enter(&it)
	}
}

// Ascend calls each with the existing items of [lo, hi) in order until it
// returns false; nil hi is no bound. The Item is good until each returns. False
// means that the range is not known: ask the engine, and mind what this Writer
// wrote. Do not write in each.
func (w *Writer) Ascend(lo, hi []byte, each func(*Item) bool) (known bool) {
	s := &w.k.mu.state
	end := upper(hi)
	if !s.covers(end) {
		return false
	}
	var it Item
	for p := s.live.find(text(lo)); ; p = s.live.next(p) {
		e := s.live.at(p)
		if e == nil || end.above(e.key) {
			return true
		}
		if it = e.item(); !each(&it) {
			return true
		}
	}
}

// Count of the existing keys in [lo, hi), without a walk.
func (w *Writer) Count(lo, hi []byte) (n int64, known bool) {
	s := &w.k.mu.state
	end := upper(hi)
	if !s.covers(end) {
		return 0, false
	}
	return int64(s.live.count(text(lo), end)), true
}

// Commit publishes the command as of revision (which stays the same for a
// command that wrote no key) and lets readers in.
func (w *Writer) Commit(revision int64) {
	k := w.k
	if k.mu.revision == 0 {
		// What changed before the first command here was never remembered.
		k.mu.forgotten = max(k.mu.forgotten, revision)
	}
	k.mu.revision = revision
	k.mu.spend(k.config.BudgetBytes)
	k.mu.Unlock()
}

// Fill takes the keys that existed at a revision at or below the present one
// and to which all later changes were or will be applied: ascending, each key
// once, in as many calls as wanted, from one goroutine. Keys that were written
// meanwhile keep what was written. The keyspace keeps the slices. True asks for
// more; false says that the budget is spent and filling must stop.
func (k *Keyspace) Fill(items []Item) bool {
	for len(items) > 0 {
		n := min(len(items), fillChunk)
		if !k.fill(items[:n]) {
			return false
		}
		items = items[n:]
	}
	return true
}

func (k *Keyspace) fill(items []Item) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &k.mu.state
	if s.partial() {
		return false
	}
	for i := range items {
		if s.items[string(items[i].Key)] == nil {
			s.enter(&items[i])
		}
	}
	s.cursor = string(items[len(items)-1].Key) + "\x00"
	s.spend(k.config.BudgetBytes)
	return !s.partial()
}

// Filled says that Fill was given all keys.
func (k *Keyspace) Filled() {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &k.mu.state
	s.filled = true
	if s.partial() {
		return
	}
	for _, e := range s.stale {
		s.bury(e)
	}
	s.stale = nil
}

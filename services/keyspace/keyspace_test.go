package keyspace

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// history is the naive keyspace: all keys, at every revision.
type history struct {
	states map[int64]map[string]Item
	now    map[string]Item
	rev    int64
}

func (h *history) commit(rev int64) {
	h.rev = rev
	h.states[rev] = maps.Clone(h.now)
}

// in returns the keys of [lo, hi) at a revision, in order.
func (h *history) in(rev int64, lo string, hi bound) []string {
	var keys []string
	for k := range h.states[rev] {
		if k >= lo && !hi.above(k) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

func same(a, b Item) bool {
	return string(a.Key) == string(b.Key) && string(a.Value) == string(b.Value) &&
		a.Create == b.Create && a.Mod == b.Mod && a.Version == b.Version && a.Lease == b.Lease
}

// run is a keyspace and a history that must agree, and what there is to fill.
type run struct {
	k      *Keyspace
	h      history
	fill   []Item
	filled bool
	start  int64
	pinned int64 // what the engine has
	budget int64
}

func TestModel(t *testing.T) {
	key := rapid.StringMatching(`[a-d]{0,3}`)
	rapid.Check(t, func(rt *rapid.T) {
		r := newRun(rt, key)
		rt.Repeat(map[string]func(*rapid.T){
			"":         r.check,
			"command":  func(rt *rapid.T) { r.command(rt, key) },
			"get":      func(rt *rapid.T) { r.get(rt, key.Draw(rt, "key")) },
			"chunk":    func(rt *rapid.T) { r.chunk(rt, key) },
			"count":    func(rt *rapid.T) { r.count(rt, key) },
			"fill":     r.fillSome,
			"commit":   func(rt *rapid.T) { r.pinned = r.h.rev; r.k.Committed(r.pinned) },
			"complete": r.complete,
		})
	})
}

func newRun(rt *rapid.T, key *rapid.Generator[string]) *run {
	r := &run{budget: rapid.SampledFrom([]int64{1 << 40, 1 << 40, 3 * entryBytes, 20 * entryBytes, 60 * entryBytes}).Draw(rt, "budget")}
	r.k = New(Config{BudgetBytes: r.budget, RecentMax: rapid.IntRange(1, 20).Draw(rt, "recent")})
	r.h = history{states: make(map[int64]map[string]Item), now: make(map[string]Item)}
	r.start = rapid.Int64Range(1, 100).Draw(rt, "start")
	for _, k := range rapid.SliceOfDistinct(key, rapid.ID[string]).Draw(rt, "existing") {
		it := Item{Key: []byte(k), Value: []byte("old"), Create: r.start, Mod: r.start, Version: 1}
		r.h.now[k] = it
		r.fill = append(r.fill, it)
	}
	slices.SortFunc(r.fill, func(a, b Item) int { return slices.Compare(a.Key, b.Key) })
	r.h.commit(r.start)
	r.pinned = r.start
	r.k.Begin().Commit(r.start)
	r.k.Committed(r.start)
	return r
}

// command puts and deletes some keys, as apply does.
func (r *run) command(rt *rapid.T, key *rapid.Generator[string]) {
	rev := r.h.rev + 1
	w := r.k.Begin()
	keys := rapid.SliceOfNDistinct(key, 0, 4, rapid.ID[string]).Draw(rt, "keys")
	for _, name := range keys {
		prev := r.h.now[name]
		got, known := w.Get([]byte(name))
		if known && got.Exists() != prev.Exists() || known && prev.Exists() && !same(got, prev) {
			rt.Fatalf("writer reads %q as %+v, want %+v", name, got, prev)
		}
		if !known && rapid.Bool().Draw(rt, "learn") {
			w.Learn(prev)
		}
		if rapid.IntRange(0, 2).Draw(rt, "op") == 0 {
			if prev.Exists() {
				w.Delete([]byte(name), rev)
				delete(r.h.now, name)
			}
			continue
		}
		it := Item{Key: []byte(name), Value: fmt.Appendf(nil, "%d", rev), Create: rev, Mod: rev, Version: prev.Version + 1}
		if prev.Exists() {
			it.Create = prev.Create
		}
		w.Put(it)
		r.h.now[name] = it
	}
	if len(keys) == 0 {
		rev-- // a command that writes no key makes no revision
	}
	w.Commit(rev)
	r.h.commit(rev)
}

func (r *run) get(rt *rapid.T, name string) {
	got, rev, known := r.k.Get([]byte(name))
	want := r.h.now[name]
	if rev != r.h.rev {
		rt.Fatalf("revision %d, want %d", rev, r.h.rev)
	}
	if !known {
		if r.k.Complete() || want.Mod > r.pinned {
			rt.Fatalf("%q is not known (complete %v, changed at %d, the engine at %d)", name, r.k.Complete(), want.Mod, r.pinned)
		}
		return
	}
	if got.Exists() != want.Exists() || want.Exists() && !same(got, want) {
		rt.Fatalf("get %q = %+v, want %+v", name, got, want)
	}
}

func (r *run) at(rt *rapid.T) int64 {
	return rapid.Int64Range(max(r.start-2, r.h.rev-12, 1), r.h.rev+1).Draw(rt, "at")
}

func limits(rt *rapid.T, key *rapid.Generator[string]) (lo, hi []byte) {
	lo = []byte(key.Draw(rt, "lo"))
	if rapid.Bool().Draw(rt, "bounded") {
		hi = []byte(key.Draw(rt, "hi"))
	}
	return lo, hi
}

// chunk reads a range at a revision chunk by chunk, with an engine's help for
// what changed, and expects what was there.
func (r *run) chunk(rt *rapid.T, key *rapid.Generator[string]) {
	lo, hi := limits(rt, key)
	at, n := r.at(rt), rapid.IntRange(1, 7).Draw(rt, "max")
	from := lo
	var got []string
	for {
		items, rev, more, known := r.k.Chunk(from, hi, at, n, nil)
		if !known {
			return
		}
		if rev != at || at < r.start || at > r.h.rev || len(items) > n || more && len(items) == 0 {
			rt.Fatalf("chunk of %d items, at most %d, at %d, want %d", len(items), n, rev, at)
		}
		for _, it := range items {
			past, existed := r.h.states[at][string(it.Key)]
			switch {
			case it.Mod > at: // asked of the engine
				if existed {
					got = append(got, string(it.Key))
				}
			case !it.Exists() || !same(it, past):
				rt.Fatalf("chunk at %d has %+v, want %+v", at, it, past)
			default:
				got = append(got, string(it.Key))
			}
		}
		if !more {
			break
		}
		from = append(slices.Clone(items[len(items)-1].Key), 0)
	}
	if want := r.h.in(at, string(lo), upper(hi)); !slices.Equal(got, want) {
		rt.Fatalf("chunks of %q..%q at %d (now %d)\n got %q\nwant %q", lo, hi, at, r.h.rev, got, want)
	}
}

func (r *run) count(rt *rapid.T, key *rapid.Generator[string]) {
	lo, hi := limits(rt, key)
	at := r.at(rt)
	n, rev, known := r.k.Count(lo, hi, at)
	if known && (rev != at || at < r.start || at > r.h.rev || int(n) != len(r.h.in(at, string(lo), upper(hi)))) {
		rt.Fatalf("count of %q..%q at %d = %d at %d, want %d", lo, hi, at, n, rev, len(r.h.in(at, string(lo), upper(hi))))
	}
	if !known && r.k.Complete() && at == r.h.rev {
		rt.Fatalf("the present is not known to a complete keyspace")
	}
}

func (r *run) fillSome(rt *rapid.T) {
	n := min(len(r.fill), rapid.IntRange(0, 8).Draw(rt, "n"))
	if !r.k.Fill(r.fill[:n]) {
		r.fill = nil
		return
	}
	r.fill = r.fill[n:]
	if len(r.fill) == 0 && !r.filled {
		r.k.Filled()
		r.filled = true
	}
}

// complete: within the budget, a filled keyspace is.
func (r *run) complete(rt *rapid.T) {
	if r.filled && r.budget > 1<<30 && !r.k.Complete() {
		rt.Fatal("filled and within the budget, but not complete")
	}
}

// check holds the invariants of the structure, and the budget.
func (r *run) check(rt *rapid.T) {
	s := &r.k.mu.state
	var bytes, pinned int64
	live := 0
	for name, e := range s.items {
		if name != e.key {
			rt.Fatalf("%q is filed as %q", e.key, name)
		}
		bytes += e.bytes()
		if e.mod > r.pinned {
			pinned += e.bytes()
		}
		if e.exists() {
			live++
		}
	}
	if bytes != s.bytes {
		rt.Fatalf("%d bytes, counted %d", bytes, s.bytes)
	}
	if s.bytes > r.budget+pinned {
		rt.Fatalf("%d bytes, %d of them pinned, with a budget of %d", s.bytes, pinned, r.budget)
	}
	if s.partial() {
		return
	}
	if s.live.n != live || s.dead.n != len(s.items)-live {
		rt.Fatalf("%d live and %d dead in order, of %d", s.live.n, s.dead.n, len(s.items))
	}
	for _, o := range []*order{s.live, s.dead} {
		if err := o.valid(); err != nil {
			rt.Fatal(err)
		}
	}
}

// TestFillKeepsWhatReadersMayAsk deletes a key twice during a fill, with room
// to remember only the second time.
func TestFillKeepsWhatReadersMayAsk(t *testing.T) {
	k := New(Config{RecentMax: 2})
	put := func(key string, rev int64) {
		w := k.Begin()
		w.Put(Item{Key: []byte(key), Create: rev, Mod: rev, Version: 1})
		w.Commit(rev)
	}
	remove := func(key string, rev int64) {
		w := k.Begin()
		w.Delete([]byte(key), rev)
		w.Commit(rev)
	}
	put("a", 1)
	remove("a", 2)
	put("b", 3)
	put("c", 4) // forgets the delete of 2, but not that the key is gone
	put("a", 5)
	remove("a", 6)
	k.Filled()
	items, _, _, known := k.Chunk(nil, nil, 5, 10, nil)
	if !known || len(items) != 3 || items[0].Exists() || items[0].Mod != 6 {
		t.Fatalf("chunk at 5 after the delete at 6: %+v, known %v", items, known)
	}
}

func TestOrderModel(t *testing.T) {
	key := rapid.StringMatching(`[a-z]{1,3}`)
	rapid.Check(t, func(rt *rapid.T) {
		var o order
		there := make(map[string]*entry)
		n := rapid.IntRange(0, 4000).Draw(rt, "n")
		shrink := rapid.IntRange(0, n).Draw(rt, "then remove")
		for i := range n {
			k := key.Draw(rt, "key")
			e := there[k]
			switch {
			case e != nil && i >= shrink:
				o.remove(e)
				delete(there, k)
			case e == nil:
				there[k] = &entry{key: k}
				o.insert(there[k])
			}
		}
		if err := o.valid(); err != nil {
			rt.Fatal(err)
		}
		sorted := slices.Sorted(maps.Keys(there))
		if o.n != len(sorted) {
			rt.Fatalf("%d entries, want %d", o.n, len(sorted))
		}
		for range 20 {
			k := key.Draw(rt, "probe")
			if want, _ := slices.BinarySearch(sorted, k); o.rank(k) != want {
				rt.Fatalf("rank of %q = %d, want %d", k, o.rank(k), want)
			}
		}
	})
}

// TestOrderSplitsAndMerges drives the order through many blocks and back.
func TestOrderSplitsAndMerges(t *testing.T) {
	var o order
	const n = 20_000
	entries := make([]*entry, n)
	for i := range entries {
		entries[i] = &entry{key: fmt.Sprintf("%08d", i*7919%n)}
		o.insert(entries[i])
	}
	if err := o.valid(); err != nil || o.n != n {
		t.Fatalf("%d entries, %v", o.n, err)
	}
	for i := 0; i < n; i += 97 {
		if got := o.rank(fmt.Sprintf("%08d", i)); got != i {
			t.Fatalf("rank of %d = %d", i, got)
		}
	}
	for _, e := range entries[:n-10] {
		o.remove(e)
	}
	if err := o.valid(); err != nil || o.n != 10 {
		t.Fatalf("%d entries, %v", o.n, err)
	}
	if len(o.blocks) > 10 {
		t.Fatalf("%d blocks for 10 entries", len(o.blocks))
	}
}

// valid checks the invariants of an order.
func (o *order) valid() error {
	n, last := 0, ""
	for b, block := range o.blocks {
		if len(block) == 0 || len(block) > blockMax || o.firsts[b] != block[0].key {
			return fmt.Errorf("block %d of %d entries, first %q", b, len(block), o.firsts[b])
		}
		if o.before(b) != n {
			return fmt.Errorf("%d entries before block %d, counted %d", o.before(b), b, n)
		}
		for _, e := range block {
			if n > 0 && e.key <= last {
				return fmt.Errorf("%q after %q", e.key, last)
			}
			last = e.key
			n++
		}
	}
	if n != o.n {
		return fmt.Errorf("%d entries, counted %d", o.n, n)
	}
	return nil
}

// TestReadersSeeWholeCommands has readers check, while a writer moves pairs of
// keys together, that they never see one without the other.
func TestReadersSeeWholeCommands(t *testing.T) {
	k := New(Config{})
	k.Begin().Commit(1)
	k.Filled()
	const commands, pairs = 3000, 8
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-done:
					return
				default:
				}
				items, rev, _, known := k.Chunk([]byte("a"), []byte("z"), 0, 2*pairs, nil)
				n, _, _ := k.Count([]byte("a"), []byte("z"), rev)
				if !known || len(items)%2 != 0 || n != int64(len(items)) {
					t.Errorf("at %d: %d items, counted %d, known %v", rev, len(items), n, known)
					return
				}
				for i := 0; i < len(items); i += 2 {
					if items[i].Mod != items[i+1].Mod || items[i].Mod > rev {
						t.Errorf("at %d: %q at %d beside %q at %d", rev, items[i].Key, items[i].Mod, items[i+1].Key, items[i+1].Mod)
						return
					}
				}
			}
		}()
	}
	for rev := int64(2); rev < commands; rev++ {
		w := k.Begin()
		for _, side := range []string{"-1", "-2"} {
			key := []byte(fmt.Sprint("k", rev*31%pairs, side))
			if it, _ := w.Get(key); it.Exists() && rev%3 == 0 {
				w.Delete(key, rev)
				continue
			}
			w.Put(Item{Key: key, Create: rev, Mod: rev, Version: 1})
		}
		w.Commit(rev)
	}
	close(done)
	wg.Wait()
}

package keyspace

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
type Keyspace struct{}

// New returns an empty, incomplete Keyspace at revision 0. It knows no key to
// be absent before Fill has passed it.
func New(c Config) *Keyspace { panic("not built") }

// Begin opens one command and locks readers out until its Commit. One goroutine
// writes. Call nothing but the Writer's methods in between.
func (k *Keyspace) Begin() *Writer { panic("not built") }

// Writer is one command being applied.
type Writer struct{}

// Get returns the key as the command sees it, its own writes included. If
// known is false, ask the engine; if known and not Exists, there is no such
// key.
func (w *Writer) Get(key []byte) (it Item, known bool) { panic("not built") }

// Put sets the item of a key. The keyspace keeps the slices, so give it bytes
// that pin nothing larger; a key that is known already keeps its old bytes.
// Mod is the revision of this command.
func (w *Writer) Put(it Item) { panic("not built") }

// Delete says that the key went with this revision.
func (w *Writer) Delete(key []byte, revision int64) { panic("not built") }

// Learn keeps what the engine said about a key that Get did not know, so that
// the next Get does, if there is room.
func (w *Writer) Learn(it Item) { panic("not built") }

// Ascend calls each with the existing items of [lo, hi) in order until it
// returns false; nil hi is no bound. False means that the range is not known:
// ask the engine, and mind what this Writer wrote. Do not write in each.
func (w *Writer) Ascend(lo, hi []byte, each func(*Item) bool) (known bool) { panic("not built") }

// Count of the existing keys in [lo, hi), without a walk.
func (w *Writer) Count(lo, hi []byte) (n int64, known bool) { panic("not built") }

// Commit publishes the command as of revision (which stays the same for a
// command that wrote no key) and lets readers in.
func (w *Writer) Commit(revision int64) { panic("not built") }

// Revision is that of the last Commit.
func (k *Keyspace) Revision() int64 { panic("not built") }

// Get returns the key and the revision at which that holds.
func (k *Keyspace) Get(key []byte) (it Item, revision int64, known bool) { panic("not built") }

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
	panic("not built")
}

// Count of the keys that existed in [lo, hi) at revision at (0: the present
// one), without a walk.
func (k *Keyspace) Count(lo, hi []byte, at int64) (n, revision int64, known bool) {
	panic("not built")
}

// Committed says that everything up to revision can be read from the engine
// (or that there is none), so that it need not be kept for want of memory.
func (k *Keyspace) Committed(revision int64) { panic("not built") }

// Fill takes the keys that existed at a revision at or below the present one
// and to which all later changes were or will be applied: ascending, each key
// once, in as many calls as wanted, from one goroutine. Keys that were written
// meanwhile keep what was written. True asks for more; false says that the
// budget is spent and filling must stop.
func (k *Keyspace) Fill(items []Item) bool { panic("not built") }

// Filled says that Fill was given all keys.
func (k *Keyspace) Filled() { panic("not built") }

// Complete tells whether every key is known: filled and within the budget.
func (k *Keyspace) Complete() bool { panic("not built") }

// Reset forgets everything, as New.
func (k *Keyspace) Reset() { panic("not built") }

// Bytes is the memory that keys, values and their overhead take.
func (k *Keyspace) Bytes() int64 { panic("not built") }

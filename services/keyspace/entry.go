package keyspace

import (
	"sync/atomic"
	"unsafe"
)

// entryBytes is what a key costs beside its own bytes and its value's: the
// entry 80, its place in the map and in order the rest (measured at 1,000,000).
const entryBytes = 146

// entry is a key that exists (version > 0) or that is remembered to have gone
// (version 0; mod says when). Its address stays the same, so that overwriting
// touches neither the map nor the order. Guarded by the Keyspace's lock, but
// for used.
type entry struct {
	key, value string // immutable bytes, shared with readers
	create     int64
	mod        int64
	version    int64
	lease      int64
	used       atomic.Bool // since it was last considered for eviction
}

func (e *entry) exists() bool { return e.version != 0 }

// item is a copy for readers.
func (e *entry) item() Item {
	return Item{Key: view(e.key), Value: view(e.value), Create: e.create, Mod: e.mod, Version: e.version, Lease: e.lease}
}

// set overwrites all but the key.
func (e *entry) set(it *Item) {
	e.value = text(it.Value)
	e.create, e.mod, e.version, e.lease = it.Create, it.Mod, it.Version, it.Lease
}

func (e *entry) bytes() int64 { return entryBytes + int64(len(e.key)+len(e.value)) }

// text and view pass between the two forms of the same immutable bytes: a
// string is 8 bytes smaller in each entry, and what the map's keys must be.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func view(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// bound is the upper end of a range, or none.
type bound struct {
	key string
	set bool
}

func upper(hi []byte) bound { return bound{text(hi), hi != nil} }

// above tells whether key is at or above the bound.
func (b bound) above(key string) bool { return b.set && key >= b.key }

package edge

import "sync/atomic"

// Floor is the highest revision and raft term that the gateway has answered
// with. The zero value is ready.
type Floor struct {
	revision atomic.Int64
	term     atomic.Uint64
}

// Revision is what no later answer may lie below.
func (f *Floor) Revision() int64 { return f.revision.Load() }

// Raise takes in what an answer is about to carry, and returns the term that it
// must carry.
func (f *Floor) Raise(revision int64, term uint64) uint64 {
	for old := f.revision.Load(); old < revision; old = f.revision.Load() {
		if f.revision.CompareAndSwap(old, revision) {
			break
		}
	}
	return f.RaiseTerm(term)
}

// RaiseTerm takes in a term and returns the highest one.
func (f *Floor) RaiseTerm(term uint64) uint64 {
	for {
		old := f.term.Load()
		if old >= term {
			return old
		}
		if f.term.CompareAndSwap(old, term) {
			return term
		}
	}
}

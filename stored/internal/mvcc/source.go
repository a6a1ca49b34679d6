package mvcc

import (
	"context"
	"errors"
	"fmt"

	"github.com/quartet-kv/quartet/services/invariant"
	"github.com/quartet-kv/quartet/services/keyspace"
	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/kv"
	"github.com/quartet-kv/quartet/stored/internal/row"
)

// Source is the keys as of one moment: a revision, or the state that a command
// being applied sees.
type Source interface {
	// Get returns the key; one that does not exist has Version 0.
	Get(key []byte) (keyspace.Item, error)
	// Ascend calls each with the existing items of [lo, hi) in order until it
	// returns false. A nil hi is no bound. Want is how many items the caller
	// expects to take, 0 if all.
	Ascend(lo, hi []byte, want int, each func(*keyspace.Item) bool) error
	// Count is the number of existing keys in [lo, hi).
	Count(lo, hi []byte) (int64, error)
}

// Bounds are the range of keys that etcd's key and range_end name. For a single
// key, single is true and [lo, hi) is not used.
func Bounds(key, end []byte) (lo, hi []byte, single bool) {
	switch {
	case len(end) == 0:
		return key, nil, true
	case len(end) == 1 && end[0] == 0:
		return key, nil, false
	default:
		return key, end, false
	}
}

// Snapshot is the Source of one revision. One that was made for the present
// takes the revision of whatever it reads first. It is used by one goroutine
// and holds nothing.
type Snapshot struct {
	state    *State
	ctx      context.Context
	revision int64 // 0 until it is fixed
	stamp    engine.Stamp
	stamped  bool
}

// At returns the Snapshot of a revision that exists; 0 is the present one. Its
// waits for the engine end with ctx (errs.ErrNotReady).
func (s *State) At(ctx context.Context, revision int64) *Snapshot {
	return &Snapshot{state: s, ctx: ctx, revision: revision}
}

// Revision of the snapshot. It is fixed by the first read, or by asking.
func (s *Snapshot) Revision() int64 {
	if s.revision == 0 {
		s.fix()
	}
	return s.revision
}

// fix takes the present view's revision.
func (s *Snapshot) fix() {
	v := s.state.View()
	s.revision, s.stamp, s.stamped = v.Revision, v.Stamp, true
}

// Get implements Source.
func (s *Snapshot) Get(key []byte) (keyspace.Item, error) {
	it, revision, known := s.state.Keyspace.Get(key)
	switch {
	case known && s.revision == 0:
		s.revision = revision
		return it, nil
	case known && (revision == s.revision || it.Mod != 0 && it.Mod <= s.revision):
		return it, nil
	}
	// Changed since, or gone for so long that nobody remembers when.
	return s.engineGet(key)
}

// Ascend implements Source.
func (s *Snapshot) Ascend(lo, hi []byte, want int, each func(*keyspace.Item) bool) error {
	if want <= 0 || want > keyspace.ChunkMax {
		want = keyspace.ChunkMax
	}
	items := make([]keyspace.Item, 0, min(want, 16))
	for {
		chunk, revision, more, known := s.state.Keyspace.Chunk(lo, hi, s.revision, want, items[:0])
		if !known {
			return s.engineAscend(lo, hi, each)
		}
		if s.revision == 0 {
			s.revision = revision
		}
		for i := range chunk {
			it := &chunk[i]
			if it.Mod > s.revision {
				old, err := s.engineGet(it.Key)
				if err != nil {
					return err
				}
				it = &old
			}
			if it.Exists() && !each(it) {
				return nil
			}
		}
		if !more || len(chunk) == 0 {
			return nil
		}
		lo = after(chunk[len(chunk)-1].Key)
		items, want = chunk, keyspace.ChunkMax
	}
}

// Count implements Source.
func (s *Snapshot) Count(lo, hi []byte) (int64, error) {
	n, revision, known := s.state.Keyspace.Count(lo, hi, s.revision)
	if known {
		if s.revision == 0 {
			s.revision = revision
		}
		if invariant.On && s.state.Committed().Revision >= s.revision {
			walked, err := s.walkCount(lo, hi)
			invariant.Check(err != nil || walked == n, "keyspace counts %d keys of [%q, %q) at revision %d, the engine %d", n, lo, hi, s.revision, walked)
		}
		return n, nil
	}
	return s.walkCount(lo, hi)
}

func (s *Snapshot) walkCount(lo, hi []byte) (n int64, err error) {
	err = s.engineAscend(lo, hi, func(*keyspace.Item) bool { n++; return true })
	return n, err
}

// locate finds the stamp of the revision and waits until the engine holds it.
func (s *Snapshot) locate() error {
	if s.revision == 0 {
		s.fix()
	}
	if s.stamped {
		return s.state.WaitStamp(s.ctx, s.stamp)
	}
	stamp, err := s.state.StampOf(s.ctx, s.revision)
	if err != nil {
		return err
	}
	s.stamp, s.stamped = stamp, true
	return nil
}

func (s *Snapshot) engineGet(key []byte) (keyspace.Item, error) {
	if err := s.locate(); err != nil {
		return keyspace.Item{}, err
	}
	return EngineGet(s.state.Engine, key, s.stamp)
}

func (s *Snapshot) engineAscend(lo, hi []byte, each func(*keyspace.Item) bool) error {
	if err := s.locate(); err != nil {
		return err
	}
	return EngineAscend(s.state.Engine, lo, hi, s.stamp, each)
}

// EngineGet returns a key as the engine holds it at a stamp.
func EngineGet(e engine.Engine, key []byte, at engine.Stamp) (keyspace.Item, error) {
	value, _, err := e.Get(row.Key(key), at)
	if errors.Is(err, engine.ErrNotFound) || err == nil && len(value) == 0 {
		return keyspace.Item{}, nil
	}
	if err != nil {
		return keyspace.Item{}, err
	}
	return parse(row.Key(key), value)
}

// EngineAscend walks the existing keys as the engine holds them at a stamp.
func EngineAscend(e engine.Engine, lo, hi []byte, at engine.Stamp, each func(*keyspace.Item) bool) error {
	upper := []byte{row.PrefixKey + 1}
	if hi != nil {
		upper = row.Key(hi)
	}
	it := e.Iterate(engine.IterOptions{Lower: row.Key(lo), Upper: upper, At: at})
	defer it.Close()
	for it.Next() {
		r := it.Row()
		if len(r.Value) == 0 {
			continue // a tombstone
		}
		item, err := parse(r.Key, r.Value)
		if err != nil {
			return err
		}
		if !each(&item) {
			return nil
		}
	}
	return it.Err()
}

func parse(key, value []byte) (keyspace.Item, error) {
	it, err := kv.Parse(value)
	if err != nil {
		return it, fmt.Errorf("%w: key row %q: %w", engine.ErrCorrupt, key, err)
	}
	return it, nil
}

// after is the smallest key above key.
func after(key []byte) []byte { return append(append(make([]byte, 0, len(key)+1), key...), 0) }

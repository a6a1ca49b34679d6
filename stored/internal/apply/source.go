package apply

import (
	"bytes"
	"slices"

	"github.com/quartet-kv/quartet/services/keyspace"
	"github.com/quartet-kv/quartet/stored/internal/kv"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
	"github.com/quartet-kv/quartet/stored/internal/row"
)

// present is the mvcc.Source of the state that the command being applied sees,
// without its own writes.
type present struct{ m *Machine }

// Get implements mvcc.Source. What the keyspace does not know was not written
// since the engine was committed to, so the engine's answer is present.
func (p present) Get(key []byte) (keyspace.Item, error) {
	m := p.m
	it, _, known := m.state.Keyspace.Get(key)
	if known {
		if !it.Exists() {
			return keyspace.Item{}, nil
		}
		return it, nil
	}
	it, err := mvcc.EngineGet(m.state.Engine, key, m.state.Committed().Stamp)
	if err == nil && it.Exists() {
		m.write.learned = append(m.write.learned, it)
	}
	return it, err
}

// Ascend implements mvcc.Source.
func (p present) Ascend(lo, hi []byte, want int, each func(*keyspace.Item) bool) error {
	m := p.m
	if want <= 0 || want > keyspace.ChunkMax {
		want = keyspace.ChunkMax
	}
	items := make([]keyspace.Item, 0, min(want, 16))
	for {
		// Nobody else writes, so all chunks are of one revision.
		chunk, _, more, known := m.state.Keyspace.Chunk(lo, hi, 0, want, items[:0])
		if !known {
			return p.ascendEngine(lo, hi, each)
		}
		for i := range chunk {
			if chunk[i].Exists() && !each(&chunk[i]) {
				return nil
			}
		}
		if !more || len(chunk) == 0 {
			return nil
		}
		lo = append(bytes.Clone(chunk[len(chunk)-1].Key), 0)
		items, want = chunk, keyspace.ChunkMax
	}
}

// ascendEngine walks the engine, with what was not committed to it laid over.
func (p present) ascendEngine(lo, hi []byte, each func(*keyspace.Item) bool) error {
	over, err := p.m.uncommittedKeys(lo, hi)
	if err != nil {
		return err
	}
	base := func(each func(*keyspace.Item) bool) error {
		return mvcc.EngineAscend(p.m.state.Engine, lo, hi, p.m.state.Committed().Stamp, each)
	}
	return mvcc.Overlay(base, over, each)
}

// Count implements mvcc.Source.
func (p present) Count(lo, hi []byte) (int64, error) {
	if n, _, known := p.m.state.Keyspace.Count(lo, hi, 0); known {
		return n, nil
	}
	var n int64
	err := p.Ascend(lo, hi, 0, func(*keyspace.Item) bool { n++; return true })
	return n, err
}

// uncommittedKeys are the keys of [lo, hi) whose rows are not in the engine yet,
// in order; a deleted one has Version 0. It walks all such rows, which is why it
// is asked only for what the keyspace does not know.
func (m *Machine) uncommittedKeys(lo, hi []byte) ([]keyspace.Item, error) {
	latest := make(map[string][]byte)
	for _, b := range append(slices.Clone(m.uncommitted), m.open) {
		for _, r := range b.Rows {
			if r.Key[0] == row.PrefixKey && mvcc.Within(r.Key[1:], lo, hi) {
				latest[string(r.Key[1:])] = r.Value
			}
		}
	}
	items := make([]keyspace.Item, 0, len(latest))
	for key, value := range latest {
		it := keyspace.Item{Key: []byte(key)}
		if len(value) > 0 {
			var err error
			if it, err = kv.Parse(value); err != nil {
				return nil, err
			}
		}
		items = append(items, it)
	}
	slices.SortFunc(items, func(a, b keyspace.Item) int { return bytes.Compare(a.Key, b.Key) })
	return items, nil
}

// attachedKeys are the keys that are attached to a lease, in order.
func (m *Machine) attachedKeys(lease int64) ([]keyspace.Item, error) {
	candidates := make(map[string]struct{})
	for _, b := range append(slices.Clone(m.uncommitted), m.open) {
		for _, key := range b.attached[lease] {
			candidates[string(key)] = struct{}{}
		}
	}
	if err := mvcc.EngineAttached(m.state.Engine, lease, m.state.Committed().Stamp, func(key []byte) {
		candidates[string(key)] = struct{}{}
	}); err != nil {
		return nil, err
	}
	items := make([]keyspace.Item, 0, len(candidates))
	for key := range candidates {
		it, err := present{m}.Get([]byte(key))
		if err != nil {
			return nil, err
		}
		// One that was detached or deleted since is told by the key itself.
		if it.Exists() && it.Lease == lease {
			items = append(items, it)
		}
	}
	slices.SortFunc(items, func(a, b keyspace.Item) int { return bytes.Compare(a.Key, b.Key) })
	return items, nil
}

// learn gives to the keyspace what the engine had to be asked for.
func (m *Machine) learn() {
	if len(m.write.learned) == 0 {
		return
	}
	w := m.state.Keyspace.Begin()
	for _, it := range m.write.learned {
		if _, known := w.Get(it.Key); !known {
			w.Learn(it)
		}
	}
	w.Commit(m.meta.Revision)
	m.write.learned = m.write.learned[:0]
}

// lookupLease returns a lease's record.
func (m *Machine) lookupLease(id int64) (row.Lease, bool, error) {
	if l, ok := m.leases[id]; ok {
		return l, l.GrantIndex != 0, nil
	}
	l, ok, err := mvcc.EngineLease(m.state.Engine, id, m.state.Committed().Stamp)
	if err == nil && ok {
		m.leases[id] = l
	}
	return l, ok, err
}

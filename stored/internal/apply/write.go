package apply

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/services/invariant"
	"github.com/quartet-kv/quartet/services/keyspace"
	"github.com/quartet-kv/quartet/stored/internal/kv"
	"github.com/quartet-kv/quartet/stored/internal/row"
)

// eventOverheadBytes is what an event costs in memory beside its bytes.
const eventOverheadBytes = 160

// write gathers the changes of one command. They are written together, or not
// at all.
type write struct {
	changes []change
	kept    bool
	// index finds the changes of long commands by key.
	index   map[string]int
	learned []keyspace.Item
	history []row.Change // scratch
	digest  xxhash.Digest
}

// change is one key's: what it was and what it becomes. A deleted one has an
// item with Version 0.
type change struct {
	key        []byte
	item, prev keyspace.Item
	encoded    []byte // the item's, or what a delete's event carries
}

// indexAbove is how many changes are looked through one by one.
const indexAbove = 8

// begin forgets the changes of the command before. Keep says that somebody may
// keep a part of the new list, so that it is not used again.
func (w *write) begin(keep bool) {
	if keep || w.kept {
		w.changes = nil
	} else {
		clear(w.changes)
		w.changes = w.changes[:0]
	}
	w.kept = keep
	w.index = nil
}

func (w *write) find(key []byte) (int, bool) {
	if len(w.changes) > indexAbove {
		if w.index == nil {
			w.index = make(map[string]int, 2*len(w.changes))
			for i := range w.changes {
				w.index[string(w.changes[i].key)] = i
			}
		}
		i, ok := w.index[string(key)]
		return i, ok
	}
	for i := range w.changes {
		if string(w.changes[i].key) == string(key) {
			return i, true
		}
	}
	return 0, false
}

func (w *write) add(c change) {
	w.changes = append(w.changes, c)
	if w.index != nil {
		w.index[string(c.key)] = len(w.changes) - 1
	}
}

// put adds the put of a key, whose bytes need not outlive the command.
func (w *write) put(key, value []byte, lease, revision int64, prev keyspace.Item) {
	it := keyspace.Item{Key: key, Value: value, Create: revision, Mod: revision, Version: 1, Lease: lease}
	if prev.Exists() {
		it.Create, it.Version = prev.Create, prev.Version+1
	}
	encoded := kv.Encode(&it)
	// The item lives in the encoded form from here on.
	own, err := kv.Parse(encoded)
	invariant.Check(err == nil, "encoded key-value does not parse: %v", err)
	w.add(change{key: own.Key, item: own, prev: prev, encoded: encoded})
}

// delete adds the delete of a key that exists.
func (w *write) delete(prev keyspace.Item, revision int64) {
	w.add(change{key: prev.Key, prev: prev, encoded: kv.EncodeDelete(prev.Key, revision)})
}

// commit makes the gathered changes a revision.
func (m *Machine) commit() {
	changes := m.write.changes
	if len(changes) == 0 {
		return
	}
	m.meta.Revision++
	m.toKeyspace(changes)
	m.toRows(changes)
	m.toEvents(changes)
}

// toKeyspace makes the changes visible to readers, all at once.
func (m *Machine) toKeyspace(changes []change) {
	w := m.state.Keyspace.Begin()
	for i := range changes {
		if c := &changes[i]; c.item.Exists() {
			w.Put(c.item)
		} else {
			w.Delete(c.key, m.meta.Revision)
		}
	}
	w.Commit(m.meta.Revision)
}

// toRows writes the keys, their attachments and the revision's history.
func (m *Machine) toRows(changes []change) {
	d := &m.write.digest
	d.Reset()
	var prev [8]byte
	binary.LittleEndian.PutUint64(prev[:], m.meta.Hash)
	d.Write(prev[:])
	for i := range changes {
		c := &changes[i]
		value := c.encoded
		if !c.item.Exists() {
			value = nil
		}
		m.row(row.Key(c.key), value)
		m.toAttachments(c)
		m.count(c)
		d.Write(c.encoded)
	}
	m.meta.Hash = d.Sum64()
	m.toHistory(changes)
}

// toHistory writes the revision's history, in as many rows as it takes.
func (m *Machine) toHistory(changes []change) {
	h := row.History{Stamp: uint64(m.pos.Stamp), Hash: m.meta.Hash, Changes: m.write.history[:0]}
	key := row.HistoryKey(m.meta.Revision)
	bytes, parts := 0, 0
	for i := range changes {
		c := &changes[i]
		h.Changes = append(h.Changes, row.Change{Key: c.key, Delete: !c.item.Exists()})
		bytes += len(c.key)
		if i+1 < len(changes) && len(h.Changes) < row.HistoryChangesMax && bytes < row.HistoryBytesMax {
			continue
		}
		m.row(key, h.Encode())
		parts++
		key, bytes, h.Changes = row.HistoryPartKey(m.meta.Revision, parts), 0, h.Changes[:0]
	}
	m.write.history = h.Changes
}

func (m *Machine) toAttachments(c *change) {
	if c.prev.Lease == c.item.Lease {
		return
	}
	if c.prev.Lease != 0 {
		m.row(row.AttachmentKey(c.prev.Lease, c.key), nil)
	}
	if c.item.Lease == 0 {
		return
	}
	m.row(row.AttachmentKey(c.item.Lease, c.key), row.Present())
	if m.open.attached == nil {
		m.open.attached = make(map[int64][][]byte)
	}
	m.open.attached[c.item.Lease] = append(m.open.attached[c.item.Lease], c.key)
}

func (m *Machine) count(c *change) {
	if c.item.Exists() {
		m.meta.Keys++
		m.meta.LiveBytes += int64(len(c.encoded))
	}
	if c.prev.Exists() {
		m.meta.Keys--
		m.meta.LiveBytes -= int64(kv.Size(&c.prev))
	}
}

// toEvents encodes what watchers are told, once for all of them.
func (m *Machine) toEvents(changes []change) {
	r := &buspb.Revision{Revision: m.meta.Revision, Events: make([]*buspb.Event, len(changes))}
	events := make([]buspb.Event, len(changes))
	for i := range changes {
		c, e := &changes[i], &events[i]
		e.Key, e.Kv, e.Delete = c.key, c.encoded, !c.item.Exists()
		if c.prev.Exists() {
			e.PrevKv = kv.Encode(&c.prev)
		}
		m.effects.Bytes += len(e.Key) + len(e.Kv) + len(e.PrevKv) + eventOverheadBytes
		r.Events[i] = e
	}
	m.effects.Revisions = append(m.effects.Revisions, r)
}

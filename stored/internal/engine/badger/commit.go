package badger

import (
	"encoding/binary"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// slabBytesMax bounds what a batch keeps between commits.
const slabBytesMax = 4 << 20

// batch is the memory of one commit, used again for the next: Badger has
// copied everything by the time that Flush returns.
type batch struct {
	slab    []byte
	entries []badger.Entry
}

// grow makes room for all that a commit will append, so that what was handed
// out does not move.
func (b *batch) grow(rows []engine.Row) {
	bytes, entries := 0, 0
	for i := range rows {
		n := chunks(rows[i].Value)
		one := 1 + len(rows[i].Key) + chunkSuffixBytes + headBytes + chunkedBytes
		bytes += one*(n+1) + len(rows[i].Value)
		entries += n + 1
	}
	if cap(b.slab) < bytes || cap(b.slab) > slabBytesMax {
		b.slab = make([]byte, 0, bytes)
	}
	if cap(b.entries) < entries {
		b.entries = make([]badger.Entry, 0, entries+entries/2)
	}
	b.slab, b.entries = b.slab[:0], b.entries[:0]
}

// entry makes one of Badger's entries out of what was appended to the slab
// since key and value.
func (b *batch) entry(key, value int) *badger.Entry {
	b.entries = append(b.entries, badger.Entry{
		Key:   b.slab[key:value:value],
		Value: b.slab[value:len(b.slab):len(b.slab)],
	})
	return &b.entries[len(b.entries)-1]
}

// Commit implements engine.Engine.
func (e *Engine) Commit(pos engine.Position, rows []engine.Row) error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	if err := engine.CheckRows(rows); err != nil {
		return err
	}
	if len(rows) > 0 {
		if err := e.write(rows); err != nil {
			return e.poison(fmt.Errorf("badger: commit at %d: %w", pos.Stamp, err))
		}
	}
	e.committed.Store(&pos)
	return nil
}

func (e *Engine) write(rows []engine.Row) error {
	b := &e.batch
	b.grow(rows)
	wb := e.db.NewManagedWriteBatch()
	defer wb.Cancel()
	for i := range rows {
		if err := b.set(wb, &rows[i]); err != nil {
			return err
		}
	}
	err := wb.Flush()
	clear(b.entries)
	return err
}

// set writes a row, its chunks first.
func (b *batch) set(wb *badger.WriteBatch, r *engine.Row) error {
	n := chunks(r.Value)
	for i := range n {
		at := len(b.slab)
		b.slab = appendChunkKey(b.slab, r.Key, uint32(i))
		value := len(b.slab)
		b.slab = appendValue(b.slab, kindChunk, r.Key, r.Stamp, uint32(i), chunk(r.Value, i))
		if err := wb.SetEntryAt(b.entry(at, value), version(r.Stamp)); err != nil {
			return err
		}
	}
	at := len(b.slab)
	b.slab = appendRowKey(b.slab, r.Key)
	value := len(b.slab)
	if n == 0 {
		b.slab = appendValue(b.slab, kindInline, r.Key, r.Stamp, 0, r.Value)
	} else {
		var head [chunkedBytes]byte
		binary.BigEndian.PutUint32(head[:], uint32(n))
		binary.BigEndian.PutUint64(head[4:], uint64(len(r.Value)))
		b.slab = appendValue(b.slab, kindChunked, r.Key, r.Stamp, 0, head[:])
	}
	return wb.SetEntryAt(b.entry(at, value), version(r.Stamp))
}

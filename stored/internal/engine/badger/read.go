package badger

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// Get implements engine.Engine.
func (e *Engine) Get(key []byte, at engine.Stamp) ([]byte, engine.Stamp, error) {
	if err := e.enter(); err != nil {
		return nil, 0, err
	}
	defer e.leave()
	var buf [128]byte
	item, err := e.find(appendRowKey(buf[:0], key), version(at))
	if err != nil {
		return nil, 0, err
	}
	s := stamp(item.Version())
	value, err := e.value(item, key, s)
	// What Badger says is only so if it met no bad block on the way.
	if bad := e.usable(); bad != nil {
		return nil, 0, bad
	}
	return value, s, err
}

// find returns the newest version of one of Badger's keys.
func (e *Engine) find(key []byte, version uint64) (*badger.Item, error) {
	txn := e.db.NewTransactionAt(version, false)
	defer txn.Discard()
	item, err := txn.Get(key)
	switch {
	case errors.Is(err, badger.ErrKeyNotFound):
		if bad := e.usable(); bad != nil {
			return nil, bad
		}
		return nil, engine.ErrNotFound
	case err != nil:
		return nil, fmt.Errorf("badger: get: %w", err)
	}
	return item, nil
}

// value reads a row's value, chunk by chunk if it was cut.
func (e *Engine) value(item *badger.Item, key []byte, s engine.Stamp) ([]byte, error) {
	raw, err := item.ValueCopy(nil)
	if err != nil {
		return nil, fmt.Errorf("badger: read %q@%d: %w", key, s, err)
	}
	kind, body, err := splitValue(raw, key, s, 0)
	if err != nil {
		return nil, err
	}
	switch {
	case kind == kindInline:
		return body, nil
	case kind == kindChunked && len(body) == chunkedBytes:
		return e.gather(key, s, binary.BigEndian.Uint32(body), binary.BigEndian.Uint64(body[4:]))
	}
	return nil, fmt.Errorf("badger: row %q@%d of kind %d: %w", key, s, kind, engine.ErrCorrupt)
}

// gather puts a value together from its chunks.
func (e *Engine) gather(key []byte, s engine.Stamp, n uint32, bytes uint64) ([]byte, error) {
	if bytes > engine.ValueBytesMax {
		return nil, fmt.Errorf("badger: row %q@%d of %d bytes: %w", key, s, bytes, engine.ErrCorrupt)
	}
	value := make([]byte, 0, bytes)
	for i := range n {
		item, err := e.find(appendChunkKey(nil, key, i), version(s))
		if errors.Is(err, engine.ErrNotFound) || err == nil && stamp(item.Version()) != s {
			return nil, fmt.Errorf("badger: chunk %d of %q@%d is missing: %w", i, key, s, engine.ErrCorrupt)
		}
		if err != nil {
			return nil, err
		}
		raw, err := item.ValueCopy(nil)
		if err != nil {
			return nil, fmt.Errorf("badger: read chunk %d of %q@%d: %w", i, key, s, err)
		}
		kind, body, err := splitValue(raw, key, s, i)
		if err != nil {
			return nil, err
		}
		if kind != kindChunk {
			return nil, fmt.Errorf("badger: chunk %d of %q@%d is of kind %d: %w", i, key, s, kind, engine.ErrCorrupt)
		}
		value = append(value, body...)
	}
	if uint64(len(value)) != bytes {
		return nil, fmt.Errorf("badger: row %q@%d has %d of %d bytes: %w", key, s, len(value), bytes, engine.ErrCorrupt)
	}
	return value, nil
}

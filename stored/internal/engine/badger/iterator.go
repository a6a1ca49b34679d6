package badger

import (
	"bytes"

	"github.com/dgraph-io/badger/v4"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// iterator walks the rows of one of Badger's.
type iterator struct {
	e       *Engine
	opts    engine.IterOptions
	txn     *badger.Txn
	it      *badger.Iterator
	row     engine.Row
	err     error
	started bool
}

// Iterate implements engine.Engine.
func (e *Engine) Iterate(opts engine.IterOptions) engine.Iterator {
	i := &iterator{e: e, opts: opts}
	if i.err = e.enter(); i.err != nil {
		return i
	}
	defer e.leave()
	i.txn = e.db.NewTransactionAt(version(opts.At), false)
	o := badger.IteratorOptions{
		// Values are in the tables; prefetching starts a goroutine for each.
		PrefetchValues: false,
		Reverse:        opts.Reverse,
		AllVersions:    opts.AllVersions,
		// Tables without such keys are left out.
		Prefix: appendRowKey(nil, shared(opts.Lower, opts.Upper)),
	}
	i.it = i.txn.NewIterator(o)
	return i
}

// shared is what all keys of [lower, upper) begin with.
func shared(lower, upper []byte) []byte {
	n := 0
	for n < len(lower) && n < len(upper) && lower[n] == upper[n] {
		n++
	}
	return lower[:n]
}

// Next implements engine.Iterator.
func (i *iterator) Next() bool {
	if i.err != nil || i.it == nil {
		return false
	}
	if i.err = i.e.enter(); i.err != nil {
		return false
	}
	defer i.e.leave()
	for {
		i.advance()
		if i.err = i.e.usable(); i.err != nil {
			return false
		}
		if !i.it.Valid() {
			return false
		}
		item := i.it.Item()
		key := item.Key()[1:]
		if i.beyond(key) {
			return false
		}
		if i.opts.Reverse && i.opts.Upper != nil && bytes.Compare(key, i.opts.Upper) >= 0 {
			continue // the bound itself
		}
		if item.IsDeletedOrExpired() {
			continue // the marker of a purged version, among all versions
		}
		return i.take(item, key)
	}
}

func (i *iterator) advance() {
	if i.started {
		i.it.Next()
		return
	}
	i.started = true
	switch {
	case !i.opts.Reverse:
		i.it.Seek(appendRowKey(nil, i.opts.Lower))
	case i.opts.Upper != nil:
		i.it.Seek(appendRowKey(nil, i.opts.Upper))
	default:
		i.it.Seek([]byte{rowPrefix + 1})
		if i.it.Valid() {
			return
		}
	}
}

// beyond tells whether key lies behind the range in the walk's direction.
func (i *iterator) beyond(key []byte) bool {
	if i.opts.Reverse {
		return bytes.Compare(key, i.opts.Lower) < 0
	}
	return i.opts.Upper != nil && bytes.Compare(key, i.opts.Upper) >= 0
}

func (i *iterator) take(item *badger.Item, key []byte) bool {
	i.row = engine.Row{Key: bytes.Clone(key), Stamp: stamp(item.Version())}
	if i.opts.KeysOnly {
		return true
	}
	i.row.Value, i.err = i.e.value(item, i.row.Key, i.row.Stamp)
	return i.err == nil
}

// Row implements engine.Iterator.
func (i *iterator) Row() engine.Row { return i.row }

// Err implements engine.Iterator.
func (i *iterator) Err() error { return i.err }

// Close implements engine.Iterator.
func (i *iterator) Close() {
	if i.it == nil {
		return
	}
	i.e.open.RLock()
	defer i.e.open.RUnlock()
	if !i.e.closed.Load() { // else what it holds is gone already
		i.it.Close()
		i.txn.Discard()
	}
	i.it = nil
}

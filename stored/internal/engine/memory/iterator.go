package memory

import (
	"bytes"

	"github.com/tidwall/btree"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// iterator walks a copy of the tree, which shares its nodes until they change.
type iterator struct {
	e    *Engine
	opts engine.IterOptions
	it   btree.IterG[engine.Row]
	row  engine.Row
	err  error

	open    bool
	started bool
	ended   bool
	ahead   bool // it stands on a row that Next has not looked at
}

// Iterate implements engine.Engine.
func (e *Engine) Iterate(opts engine.IterOptions) engine.Iterator {
	d := e.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.failed != nil {
		return &iterator{err: e.failed}
	}
	return &iterator{e: e, opts: opts, it: d.mu.rows.IsoCopy().Iter(), open: true}
}

// Next implements engine.Iterator.
func (i *iterator) Next() bool {
	if i.err == nil {
		i.err = i.e.refuses()
	}
	if i.err != nil {
		return false
	}
	if i.opts.Reverse {
		return i.previous()
	}
	for i.step() {
		r := i.it.Item()
		if i.opts.Upper != nil && bytes.Compare(r.Key, i.opts.Upper) >= 0 {
			break
		}
		if r.Stamp > i.opts.At {
			continue
		}
		if !i.opts.AllVersions && i.row.Key != nil && bytes.Equal(r.Key, i.row.Key) {
			continue
		}
		i.row = r
		return true
	}
	i.row = engine.Row{}
	return false
}

// previous finds the next key downwards; its versions come oldest first.
func (i *iterator) previous() bool {
	var found *engine.Row
	for i.step() {
		r := i.it.Item()
		if bytes.Compare(r.Key, i.opts.Lower) < 0 {
			i.ahead = true
			break
		}
		if found != nil && !bytes.Equal(found.Key, r.Key) {
			i.ahead = true
			break
		}
		if r.Stamp <= i.opts.At {
			found = &r
		}
	}
	if found == nil {
		i.row = engine.Row{}
		return false
	}
	i.row = *found
	return true
}

// step moves the tree's iterator one row on, or keeps it where it is ahead. The
// tree's iterator must not be moved again after its end.
func (i *iterator) step() bool {
	if i.ahead {
		i.ahead = false
		return true
	}
	i.ended = i.ended || !i.move()
	return !i.ended
}

func (i *iterator) move() bool {
	if i.started {
		if i.opts.Reverse {
			return i.it.Prev()
		}
		return i.it.Next()
	}
	i.started = true
	if !i.opts.Reverse {
		return i.it.Seek(engine.Row{Key: i.opts.Lower, Stamp: ^engine.Stamp(0)})
	}
	if i.opts.Upper == nil {
		return i.it.Last()
	}
	if i.it.Seek(engine.Row{Key: i.opts.Upper, Stamp: ^engine.Stamp(0)}) {
		return i.it.Prev()
	}
	return i.it.Last()
}

// Row implements engine.Iterator.
func (i *iterator) Row() engine.Row {
	if i.opts.KeysOnly {
		return engine.Row{Key: i.row.Key, Stamp: i.row.Stamp}
	}
	return i.row
}

// Err implements engine.Iterator.
func (i *iterator) Err() error { return i.err }

// Close implements engine.Iterator.
func (i *iterator) Close() {
	if i.open {
		i.it.Release()
		i.open = false
	}
}

// Package memory is the engine that keeps everything in memory: the plainest
// reading of engine.Engine's promises, for tests and for members that want no
// disk. What outlives an Engine is its Disk, which a test can cut the power of.
package memory

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/tidwall/btree"

	"github.com/quartet-kv/quartet/services/invariant"
	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// errInUse is returned by Disk.Open while an Engine is open.
var errInUse = errors.New("memory: disk in use")

// Disk holds the rows of one store from one Engine to the next. Create with
// NewDisk.
type Disk struct {
	mu struct {
		sync.RWMutex
		rows      *btree.BTreeG[engine.Row]
		committed engine.Position
		synced    engine.Position
		floor     engine.Stamp
		size      int64
		undo      []change // since the last Sync, oldest first
		open      *Engine
	}
}

// change is one write that a power cut may take back.
type change struct {
	row     engine.Row // as written; a purged one has a nil Key
	before  engine.Row
	existed bool
}

// NewDisk returns an empty Disk.
func NewDisk() *Disk {
	d := &Disk{}
	d.mu.rows = btree.NewBTreeGOptions(versionLess, btree.Options{NoLocks: true})
	return d
}

// versionLess orders versions by key, newest first within one.
func versionLess(a, b engine.Row) bool {
	if c := bytes.Compare(a.Key, b.Key); c != 0 {
		return c < 0
	}
	return a.Stamp > b.Stamp
}

// Open returns an Engine on what the Disk holds. One at a time.
func (d *Disk) Open() (*Engine, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.open != nil {
		return nil, errInUse
	}
	d.mu.committed = d.mu.synced
	d.mu.open = &Engine{disk: d}
	return d.mu.open, nil
}

// PowerCut ends the open Engine, if any, as a power cut does: of the writes
// since the last Sync, those remain for which keep returns true.
func (d *Disk) PowerCut(keep func(engine.Row) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.open != nil {
		d.mu.open.failed = engine.ErrClosed
		d.mu.open = nil
	}
	for i := len(d.mu.undo) - 1; i >= 0; i-- {
		c := d.mu.undo[i]
		if c.row.Key != nil && keep(c.row) {
			continue
		}
		if c.existed {
			d.setLocked(c.before)
		} else {
			d.deleteLocked(c.row)
		}
	}
	d.mu.undo = nil
}

func (d *Disk) setLocked(row engine.Row) (before engine.Row, existed bool) {
	before, existed = d.mu.rows.Set(row)
	d.mu.size += rowBytes(row) - rowBytes(before)
	return before, existed
}

func (d *Disk) deleteLocked(row engine.Row) (before engine.Row, existed bool) {
	before, existed = d.mu.rows.Delete(row)
	d.mu.size -= rowBytes(before)
	return before, existed
}

// rowBytes is a row's share of Sizes.
func rowBytes(r engine.Row) int64 {
	const stampBytes = 8
	if r.Key == nil && r.Value == nil {
		return 0
	}
	return int64(len(r.Key) + len(r.Value) + stampBytes)
}

// Engine implements engine.Engine on a Disk.
type Engine struct {
	disk   *Disk
	failed error // guarded by disk.mu
}

var _ engine.Engine = (*Engine)(nil)

// refuses is why the engine answers nothing any more, nil if it does.
func (e *Engine) refuses() error {
	e.disk.mu.RLock()
	defer e.disk.mu.RUnlock()
	return e.failed
}

// New returns an Engine on a Disk of its own.
func New() *Engine {
	e, err := NewDisk().Open()
	if err != nil {
		panic(err) // a fresh disk is free
	}
	return e
}

// Commit implements engine.Engine.
func (e *Engine) Commit(pos engine.Position, rows []engine.Row) error {
	if err := engine.CheckRows(rows); err != nil {
		return err
	}
	d := e.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.failed != nil {
		return e.failed
	}
	if invariant.On {
		invariant.Check(pos.Stamp >= d.mu.committed.Stamp, "commit at %v after %v", pos, d.mu.committed)
	}
	for _, r := range rows {
		row := engine.Row{Key: bytes.Clone(r.Key), Value: append([]byte{}, r.Value...), Stamp: r.Stamp}
		if row.Key == nil {
			row.Key = []byte{}
		}
		before, existed := d.setLocked(row)
		d.mu.undo = append(d.mu.undo, change{row: row, before: before, existed: existed})
	}
	d.mu.committed = pos
	return nil
}

// Get implements engine.Engine.
func (e *Engine) Get(key []byte, at engine.Stamp) ([]byte, engine.Stamp, error) {
	d := e.disk
	d.mu.RLock()
	defer d.mu.RUnlock()
	if e.failed != nil {
		return nil, 0, e.failed
	}
	var found *engine.Row
	d.mu.rows.Ascend(engine.Row{Key: key, Stamp: at}, func(r engine.Row) bool {
		if bytes.Equal(r.Key, key) {
			found = &r
		}
		return false
	})
	if found == nil {
		return nil, 0, engine.ErrNotFound
	}
	return found.Value, found.Stamp, nil
}

// Sync implements engine.Engine.
func (e *Engine) Sync() (engine.Position, error) {
	d := e.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.failed != nil {
		return engine.Position{}, e.failed
	}
	d.mu.synced = d.mu.committed
	d.mu.undo = nil
	return d.mu.synced, nil
}

// Synced implements engine.Engine.
func (e *Engine) Synced() engine.Position {
	e.disk.mu.RLock()
	defer e.disk.mu.RUnlock()
	return e.disk.mu.synced
}

// Purge implements engine.Engine. Versions that are superseded stay until they
// are named.
func (e *Engine) Purge(floor engine.Stamp, versions []engine.Version) error {
	d := e.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.failed != nil {
		return e.failed
	}
	if err := engine.CheckPurge(floor, d.mu.synced.Stamp, versions); err != nil {
		return err
	}
	d.mu.floor = max(d.mu.floor, floor)
	for _, v := range versions {
		if before, existed := d.deleteLocked(engine.Row{Key: v.Key, Stamp: v.Stamp}); existed {
			d.mu.undo = append(d.mu.undo, change{before: before, existed: true})
		}
	}
	return nil
}

// Sizes implements engine.Engine.
func (e *Engine) Sizes() engine.Sizes {
	e.disk.mu.RLock()
	defer e.disk.mu.RUnlock()
	return engine.Sizes{Disk: e.disk.mu.size, Live: e.disk.mu.size}
}

// Close implements engine.Engine. What was committed stays on the Disk, but
// the next Engine starts at Synced.
func (e *Engine) Close() error {
	d := e.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(e.failed, engine.ErrClosed) {
		return nil
	}
	e.failed = fmt.Errorf("memory: %w", engine.ErrClosed)
	d.mu.open = nil
	return nil
}

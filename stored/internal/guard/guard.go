// Package guard lets an engine be closed under its readers. A store stops while
// calls are being served: a scan may stand in the middle of its range, waiting
// for a slow client. An engine wants its iterators closed before it is; here they
// are, and whoever uses one afterwards is told engine.ErrClosed.
//
// Locks: an iterator's own mutex is taken for each step, and by Close; the
// engine's is held for reading by each Get, and for writing by Close. An
// iterator's is never held while the engine's is taken.
package guard

import (
	"sync"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// Engine is an engine.Engine whose Close does not mind readers.
type Engine struct {
	engine.Engine

	mu struct {
		sync.RWMutex
		closed bool
		open   map[*iterator]struct{}
	}
	// openMu guards mu.open, while mu is held for reading.
	openMu sync.Mutex
}

// New guards an engine, which nobody else may use from here on.
func New(e engine.Engine) *Engine {
	g := &Engine{Engine: e}
	g.mu.open = make(map[*iterator]struct{})
	return g
}

// Get implements engine.Engine.
func (g *Engine) Get(key []byte, at engine.Stamp) ([]byte, engine.Stamp, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.mu.closed {
		return nil, 0, engine.ErrClosed
	}
	return g.Engine.Get(key, at)
}

// Sizes implements engine.Engine; a closed one says nothing.
func (g *Engine) Sizes() engine.Sizes {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.mu.closed {
		return engine.Sizes{}
	}
	return g.Engine.Sizes()
}

// Iterate implements engine.Engine.
func (g *Engine) Iterate(opts engine.IterOptions) engine.Iterator {
	g.mu.RLock()
	defer g.mu.RUnlock()
	it := &iterator{guard: g}
	if g.mu.closed {
		it.err = engine.ErrClosed
		return it
	}
	it.it = g.Engine.Iterate(opts)
	g.openMu.Lock()
	g.mu.open[it] = struct{}{}
	g.openMu.Unlock()
	return it
}

// Close implements engine.Engine: it ends all iterators first.
func (g *Engine) Close() error {
	g.mu.Lock()
	g.mu.closed = true
	open := g.mu.open
	g.mu.open = nil
	g.mu.Unlock()
	for it := range open {
		it.end(engine.ErrClosed)
	}
	return g.Engine.Close()
}

// iterator can be ended by Close between two steps of its user.
type iterator struct {
	guard *Engine

	mu  sync.Mutex
	it  engine.Iterator // nil when ended
	row engine.Row
	err error
}

// Next implements engine.Iterator.
func (i *iterator) Next() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.it == nil || !i.it.Next() {
		return false
	}
	i.row = i.it.Row()
	return true
}

// Row implements engine.Iterator.
func (i *iterator) Row() engine.Row { return i.row }

// Err implements engine.Iterator.
func (i *iterator) Err() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.it == nil {
		return i.err
	}
	return i.it.Err()
}

// Close implements engine.Iterator.
func (i *iterator) Close() {
	i.end(nil)
	i.guard.mu.RLock()
	defer i.guard.mu.RUnlock()
	i.guard.openMu.Lock()
	defer i.guard.openMu.Unlock()
	delete(i.guard.mu.open, i)
}

func (i *iterator) end(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.it == nil {
		return
	}
	i.it.Close()
	i.it, i.err = nil, err
}

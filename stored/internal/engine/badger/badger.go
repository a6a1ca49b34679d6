// Package badger is the engine on Badger in managed mode, where the stamp is
// the timestamp: a row at a stamp is one of Badger's own versions.
//
// # Layout
//
// Every key of Badger's is one byte of ours and then the caller's key, at
// version stamp+1 (Badger has no version 0):
//
//	'r' key             version  kind=inline  crc32c  value
//	'r' key             version  kind=chunked crc32c  u32 chunks, u64 bytes
//	'c' key u32(chunk)  version  kind=chunk   crc32c  up to chunkBytesMax of the value
//
// The checksum is over stamp, key and what follows. Values above chunkBytesMax
// are cut, so that none ever lands in Badger's value log.
//
// Beside Badger's files stands SYNCED: the position of the last Sync, the
// purge floor, and up to which byte each write-ahead file was intact and
// fsynced. It is replaced by rename.
//
// # What Badger does not promise, and what is done about it
//
//  1. Its Sync leaves out memtables queued for flush and holds the writer up.
//     Ours fsyncs every write-ahead file of the directory through a file
//     descriptor of its own, while commits go on.
//  2. It cuts a write-ahead file at the first bad entry and says nothing. Open
//     checks before Badger does that each is intact as far as SYNCED says, and
//     cuts it itself, since some garbage keeps Badger from opening at all.
//  3. A block that fails its checksum is a table that ends early, to reads and
//     to compactions, and nobody is told. See corruption.go.
//  4. Batches of entries with their own versions are not atomic. Rows above
//     Synced may be there with holes; engine.Engine promises no more.
//  5. Superseded rows are dropped only when something makes it rewrite their
//     table: Purge writes a delete marker over each version it is told.
//  6. The discard timestamp is forgotten at a restart. SYNCED keeps the floor.
package badger

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// Engine implements engine.Engine. Open makes one.
type Engine struct {
	db  *badger.DB
	dir string
	log *slog.Logger

	batch batch // of the one goroutine that commits

	committed atomic.Pointer[engine.Position]
	synced    atomic.Pointer[marker]
	wal       walScan // of the one goroutine that syncs

	// open is held, shared, by every call while it touches Badger, which unmaps
	// its files in Close whoever reads them.
	open     sync.RWMutex
	closed   atomic.Bool
	poisoned atomic.Pointer[failure]
	stuck    atomic.Bool // Badger's Close might wait for ever
	sound    corruptionWatch

	purge struct {
		sync.Mutex
		floor engine.Stamp
	}
	// fsync is os.File.Sync; tests make it fail.
	fsync func(*os.File) error
}

// failure is why the engine refuses everything.
type failure struct{ err error }

var _ engine.Engine = (*Engine)(nil)

// Open opens or creates the engine in dir, which it locks against a second
// one. engine.ErrCorrupt says that what was synced is not all there.
func Open(dir string, c Config, log *slog.Logger) (*Engine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("badger: create directory: %w", err)
	}
	m, err := readMarker(dir)
	if err != nil {
		return nil, err
	}
	e := &Engine{dir: dir, log: log, fsync: (*os.File).Sync}
	if err := e.prepare(m); err != nil {
		return nil, err
	}
	e.synced.Store(m)
	e.committed.Store(&m.Position)
	e.purge.floor = m.Floor
	e.sound.begin()
	if e.db, err = open(c.options(dir, logger{log, e.onFailure})); err != nil {
		e.sound.end()
		return nil, err
	}
	e.db.SetDiscardTs(version(m.Floor))
	return e, nil
}

// prepare makes the directory fit to be opened by Badger: it refuses damage,
// and removes write-ahead files that were emptied or made by a process that
// was killed before the next step, which Badger would not open. The marker
// must forget files that are gone, since Badger gives their names out again.
func (e *Engine) prepare(m *marker) error {
	if err := removeEmpty(e.dir); err != nil {
		return err
	}
	there, err := m.cutFiles(e.dir)
	if err != nil {
		return err
	}
	if len(there) == len(m.Files) {
		return nil
	}
	m.Files = there
	if err := e.writeMarker(m); err != nil {
		return fmt.Errorf("badger: write marker: %w", err)
	}
	return nil
}

// open turns the panics with which Badger meets a damaged table into errors.
func open(o badger.Options) (db *badger.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("badger: open: %v: %w", p, engine.ErrCorrupt)
		}
	}()
	db, err = badger.OpenManaged(o)
	if err != nil {
		return nil, fmt.Errorf("badger: open: %w", err)
	}
	return db, nil
}

// version is Badger's timestamp of a stamp.
func version(s engine.Stamp) uint64 {
	if s == ^engine.Stamp(0) {
		return uint64(s)
	}
	return uint64(s) + 1
}

// stamp is the inverse of version.
func stamp(version uint64) engine.Stamp { return engine.Stamp(version - 1) }

// Synced implements engine.Engine.
func (e *Engine) Synced() engine.Position { return e.synced.Load().Position }

// enter is nil if the engine may be used until leave.
func (e *Engine) enter() error {
	e.open.RLock()
	if err := e.usable(); err != nil {
		e.open.RUnlock()
		return err
	}
	return nil
}

func (e *Engine) leave() { e.open.RUnlock() }

// usable is nil while the engine answers and takes writes.
func (e *Engine) usable() error {
	if e.closed.Load() {
		return engine.ErrClosed
	}
	if f := e.poisoned.Load(); f != nil {
		return f.err
	}
	if e.sound.suspicious() {
		if err := e.verify(); err != nil {
			return err
		}
	}
	return nil
}

// poison makes the engine refuse everything from now on, for the first reason.
func (e *Engine) poison(err error) error {
	if !errors.Is(err, engine.ErrCorrupt) {
		err = errors.Join(err, engine.ErrPoisoned)
	}
	if e.poisoned.CompareAndSwap(nil, &failure{err}) {
		e.log.Error("engine refuses everything from now on", "err", err)
	}
	return e.poisoned.Load().err
}

// onFailure hears from Badger's background work that something cannot be
// written; Badger itself would try again for ever, or forget it.
func (e *Engine) onFailure(message string) {
	e.stuck.Store(true)
	_ = e.poison(errors.New("badger: " + message))
}

// Close implements engine.Engine.
func (e *Engine) Close() error {
	if !e.closed.CompareAndSwap(false, true) {
		return nil
	}
	defer e.sound.end()
	if e.stuck.Load() {
		return e.poisoned.Load().err // the process is about to stop
	}
	e.open.Lock()
	defer e.open.Unlock()
	if err := e.db.Close(); err != nil {
		return fmt.Errorf("badger: close: %w", err)
	}
	return nil
}

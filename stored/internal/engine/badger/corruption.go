package badger

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4/y"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// Badger 4.9.6 drops the error when a block fails its checksum: a read takes
// the table to end there, answers "not found" or goes on with the next table,
// and a compaction writes what it saw and deletes the rest. The one trace is
// that the dropped error was formatted, with %v, around the exported variable
// y.ErrChecksumMismatch. So that variable is replaced, once in the process,
// with an error that counts how often it is formatted, and whoever was
// answered looks at the count before believing the answer.

// mismatches is what y.ErrChecksumMismatch is set to, and counts for all
// engines of the process: Badger has only one such variable.
type mismatches struct {
	once    sync.Once
	count   atomic.Uint64
	engines atomic.Int64 // open in this process
}

// Error implements error. Badger calls it only on a mismatch.
func (m *mismatches) Error() string {
	m.count.Add(1)
	return "checksum mismatch"
}

var processMismatches mismatches

// corruptionWatch tells one engine of mismatches that it has not looked into.
type corruptionWatch struct {
	mu   sync.Mutex
	seen atomic.Uint64
}

// begin watches on behalf of an engine about to open.
func (w *corruptionWatch) begin() {
	m := &processMismatches
	m.once.Do(func() { y.ErrChecksumMismatch = m })
	m.engines.Add(1)
	w.seen.Store(m.count.Load())
}

func (w *corruptionWatch) end() { processMismatches.engines.Add(-1) }

func (w *corruptionWatch) suspicious() bool { return w.seen.Load() != processMismatches.count.Load() }

// verify finds out whose mismatch it was. It reads all of the engine's tables;
// if they are sound the mismatch was another engine's. When there is no other
// engine it was ours even so: the table is gone by a compaction that has
// dropped its rows.
func (e *Engine) verify() error {
	e.sound.mu.Lock()
	defer e.sound.mu.Unlock()
	if f := e.poisoned.Load(); f != nil {
		return f.err
	}
	if !e.sound.suspicious() {
		return nil
	}
	count := processMismatches.count.Load()
	err := e.verifyTables()
	if err == nil && processMismatches.engines.Load() > 1 {
		e.sound.seen.Store(count)
		return nil
	}
	return e.poison(fmt.Errorf("badger: a block failed its checksum (%v): %w", err, engine.ErrCorrupt))
}

func (e *Engine) verifyTables() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("verify: %v", p)
		}
	}()
	return e.db.VerifyChecksum()
}

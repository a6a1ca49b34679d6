package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// Sync implements engine.Engine, in this order:
//
//	note the position of the last Commit
//	of each write-ahead file: find its last intact entry, fsync it
//	fsync the directory
//	write SYNCED beside it, fsync, rename, fsync the directory
//
// A memtable that becomes a table meanwhile takes its file away; Badger has
// then fsynced the table and named it in its manifest.
func (e *Engine) Sync() (engine.Position, error) {
	if err := e.enter(); err != nil {
		return engine.Position{}, err
	}
	defer e.leave()
	m := &marker{Version: markerVersion, Position: *e.committed.Load(), Floor: e.floor()}
	if err := e.sync(m); err != nil {
		return engine.Position{}, e.poison(fmt.Errorf("badger: sync at %d: %w", m.Position.Stamp, err))
	}
	// A compaction may have met a bad block since; then what it dropped is not
	// there, whatever was synced.
	if err := e.usable(); err != nil {
		return engine.Position{}, err
	}
	e.synced.Store(m)
	return m.Position, nil
}

func (e *Engine) sync(m *marker) error {
	names, err := walFiles(e.dir)
	if err != nil {
		return err
	}
	known := make(map[string]int64, len(names))
	for _, name := range names {
		bytes, err := e.syncFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it became a table
		}
		if err != nil {
			return err
		}
		known[name] = bytes
		m.Files = append(m.Files, markerFile{Name: name, Bytes: bytes})
	}
	e.wal.intact = known
	if err := e.syncDir(); err != nil {
		return err
	}
	return e.writeMarker(m)
}

// syncFile makes a write-ahead file durable as far as it is intact now. The
// file is written through a mapping; fsync covers those pages too.
func (e *Engine) syncFile(name string) (int64, error) {
	f, err := os.Open(filepath.Join(e.dir, name))
	if err != nil {
		return 0, err
	}
	bytes, err := e.wal.scan(f, name)
	if err == nil {
		err = e.fsync(f)
	}
	return bytes, errors.Join(err, f.Close())
}

func (e *Engine) floor() engine.Stamp {
	e.purge.Lock()
	defer e.purge.Unlock()
	return e.purge.floor
}

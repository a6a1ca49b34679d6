package badger

import (
	"errors"
	"fmt"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// Purge implements engine.Engine. A delete marker replaces each named version
// in place, at that version, and when a compaction meets it, it drops all older
// versions with it.
func (e *Engine) Purge(floor engine.Stamp, versions []engine.Version) error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	if err := engine.CheckPurge(floor, e.Synced().Stamp, versions); err != nil {
		return err
	}
	e.purge.Lock()
	if floor > e.purge.floor {
		e.purge.floor = floor
		e.db.SetDiscardTs(version(floor))
	}
	e.purge.Unlock()
	if len(versions) == 0 {
		return nil
	}
	if err := e.markDeleted(versions); err != nil {
		return e.poison(fmt.Errorf("badger: purge at %d: %w", floor, err))
	}
	return nil
}

func (e *Engine) markDeleted(versions []engine.Version) error {
	wb := e.db.NewManagedWriteBatch()
	defer wb.Cancel()
	for _, v := range versions {
		n, err := e.chunksOf(v)
		if err != nil {
			return err
		}
		for i := range n {
			if err := wb.DeleteAt(appendChunkKey(nil, v.Key, i), version(v.Stamp)); err != nil {
				return err
			}
		}
		if err := wb.DeleteAt(appendRowKey(nil, v.Key), version(v.Stamp)); err != nil {
			return err
		}
	}
	return wb.Flush()
}

// chunksOf a version: 0 if it was kept whole or is gone.
func (e *Engine) chunksOf(v engine.Version) (uint32, error) {
	item, err := e.find(appendChunkKey(nil, v.Key, 0), version(v.Stamp))
	if errors.Is(err, engine.ErrNotFound) || err == nil && stamp(item.Version()) != v.Stamp {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	row, err := e.find(appendRowKey(nil, v.Key), version(v.Stamp))
	if errors.Is(err, engine.ErrNotFound) || err == nil && stamp(row.Version()) != v.Stamp {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	raw, err := row.ValueCopy(nil)
	if err != nil {
		return 0, err
	}
	return chunkCount(raw, v.Key, v.Stamp)
}

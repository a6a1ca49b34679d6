package mvcc

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/quartet-kv/quartet/services/keyspace"
	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/row"
)

// Overlay walks base with changes laid over it: over is in key order, and one
// with Version 0 hides the key.
func Overlay(base func(each func(*keyspace.Item) bool) error, over []keyspace.Item, each func(*keyspace.Item) bool) error {
	stopped := false
	emit := func(it *keyspace.Item) bool {
		stopped = it.Exists() && !each(it)
		return !stopped
	}
	err := base(func(it *keyspace.Item) bool {
		for len(over) > 0 {
			order := bytes.Compare(over[0].Key, it.Key)
			if order > 0 {
				break
			}
			changed := &over[0]
			over = over[1:]
			if !emit(changed) {
				return false
			}
			if order == 0 {
				return true
			}
		}
		return emit(it)
	})
	if err != nil {
		return err
	}
	for i := 0; i < len(over) && !stopped; i++ {
		emit(&over[i])
	}
	return nil
}

// Within tells whether key is in [lo, hi); a nil hi is no bound.
func Within(key, lo, hi []byte) bool {
	return bytes.Compare(key, lo) >= 0 && (hi == nil || bytes.Compare(key, hi) < 0)
}

// EngineAttached calls each with the keys that the engine holds as attached to a
// lease at a stamp, in order.
func EngineAttached(e engine.Engine, lease int64, at engine.Stamp, each func(key []byte)) error {
	it := e.Iterate(engine.IterOptions{Lower: row.AttachmentKey(lease, nil), Upper: row.AttachmentEnd(lease), At: at})
	defer it.Close()
	for it.Next() {
		if r := it.Row(); len(r.Value) > 0 {
			each(r.Key[9:])
		}
	}
	return it.Err()
}

// EngineLease returns a lease's record as the engine holds it at a stamp.
func EngineLease(e engine.Engine, lease int64, at engine.Stamp) (row.Lease, bool, error) {
	value, _, err := e.Get(row.LeaseKey(lease), at)
	if errors.Is(err, engine.ErrNotFound) || err == nil && len(value) == 0 {
		return row.Lease{}, false, nil
	}
	if err != nil {
		return row.Lease{}, false, err
	}
	l, err := row.DecodeLease(value)
	if err != nil {
		return l, false, fmt.Errorf("%w: lease %x: %w", engine.ErrCorrupt, lease, err)
	}
	return l, true, nil
}

package engine

import (
	"fmt"

	"github.com/quartet-kv/quartet/services/invariant"
)

// CheckRows is what every engine's Commit refuses: rows beyond the limits.
func CheckRows(rows []Row) error {
	for i := range rows {
		if len(rows[i].Key) > KeyBytesMax || len(rows[i].Value) > ValueBytesMax {
			return fmt.Errorf("commit a key of %d and a value of %d bytes: %w", len(rows[i].Key), len(rows[i].Value), ErrTooLarge)
		}
	}
	if invariant.On {
		seen := make(map[string]bool, len(rows))
		for i := range rows {
			v := fmt.Sprintf("%q@%d", rows[i].Key, rows[i].Stamp)
			invariant.Check(!seen[v], "version %s occurs twice in one commit", v)
			seen[v] = true
		}
	}
	return nil
}

// CheckPurge is what every engine's Purge refuses: a floor beyond what is
// synced, and versions above the floor.
func CheckPurge(floor, synced Stamp, versions []Version) error {
	if floor > synced {
		return fmt.Errorf("engine: purge at floor %d beyond the synced stamp %d", floor, synced)
	}
	for _, v := range versions {
		if v.Stamp > floor {
			return fmt.Errorf("engine: purge %q@%d above the floor %d", v.Key, v.Stamp, floor)
		}
	}
	return nil
}

package badger

import (
	"os"
	"strings"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// Sizes implements engine.Engine.
func (e *Engine) Sizes() engine.Sizes {
	e.open.RLock()
	defer e.open.RUnlock()
	if e.closed.Load() {
		return engine.Sizes{}
	}
	entries, err := os.ReadDir(e.dir)
	if err != nil {
		return engine.Sizes{}
	}
	var s engine.Sizes
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			continue // it went while we looked
		}
		if strings.HasSuffix(entry.Name(), ".sst") {
			s.Disk += info.Size()
		} else {
			s.Disk += occupied(info)
		}
	}
	var stale int64
	for _, t := range e.db.Tables() {
		stale += int64(t.StaleDataSize)
	}
	s.Live = max(0, s.Disk-stale)
	return s
}

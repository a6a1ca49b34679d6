// Package compact gives up, in the background, what a compaction made
// unreachable.
//
// Applying a compaction only moves the compact revision C. Some time later, and
// each store for itself, the versions that nobody may read any more are named to
// the engine: for each key, those below the newest one at or below C, and that
// one too if it is a tombstone older than C. A delete at C itself stays, since a
// watch from C must show it. Nothing walks the key space: the history rows below
// C name the keys that changed.
//
// # Stages
//
//  1. Wait until the compacting command is synced: a store that loses it in a
//     power cut must still be able to read what it had not given up.
//  2. Say which revision is being purged to (mvcc.State.Purging), so that readers
//     below it know that their answer may not be whole.
//  3. Walk the history below C in segments. Each segment names its versions and
//     its history rows in one Purge, with the segment's end as the floor.
//  4. Name what is gone of leases, attachments and sessions.
//  5. Tell those who wait (Wait).
//
// It can be stopped anywhere: history rows that were purged are not there when
// it starts again.
package compact

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
	"github.com/quartet-kv/quartet/stored/internal/row"
)

// segmentChangesMax bounds the changes of one segment, and so the memory that
// purging takes.
const segmentChangesMax = 20000

// Synced waits until a stamp is synced.
type Synced func(ctx context.Context, stamp engine.Stamp) error

// Compactor purges one store.
type Compactor struct {
	state    *mvcc.State
	synced   Synced
	log      *slog.Logger
	versions prometheus.Counter
	done     atomic.Pointer[progress]
}

type progress struct {
	revision int64
	next     chan struct{}
}

// New returns a Compactor that does nothing before Run.
func New(state *mvcc.State, synced Synced, log *slog.Logger, versions prometheus.Counter) *Compactor {
	c := &Compactor{state: state, synced: synced, log: log, versions: versions}
	c.done.Store(&progress{revision: -1, next: make(chan struct{})})
	return c
}

// Wait returns when what a compaction to the revision made unreachable was given
// up.
func (c *Compactor) Wait(ctx context.Context, revision int64) error {
	for {
		p := c.done.Load()
		if p.revision >= revision {
			return nil
		}
		select {
		case <-p.next:
		case <-ctx.Done():
			return errs.ErrNotReady
		}
	}
}

// Run purges after each compaction, until ctx ends. An error is the engine's.
func (c *Compactor) Run(ctx context.Context) error {
	for {
		view := c.state.View()
		if view.Compact <= c.done.Load().revision {
			select {
			case <-view.Changed():
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if err := c.compact(ctx, view); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("purge below revision %d: %w", view.Compact, err)
		}
		close(c.done.Swap(&progress{view.Compact, make(chan struct{})}).next)
		c.log.Info("finished scheduled compaction", "revision", view.Compact)
	}
}

func (c *Compactor) compact(ctx context.Context, view *mvcc.View) error {
	if err := c.synced(ctx, engine.Stamp(view.CompactStamp)); err != nil {
		return err
	}
	floor, err := c.state.StampOf(ctx, view.Compact)
	if err != nil {
		return err
	}
	c.state.Purging(view.Compact)
	purged := false
	for more := true; more; {
		var any bool
		if any, more, err = c.segment(ctx, view.Compact, floor); err != nil {
			return err
		}
		purged = purged || any
	}
	if !purged {
		return nil // done before a restart
	}
	for _, prefix := range []byte{row.PrefixAttachment, row.PrefixLease, row.PrefixSession} {
		if err := c.tombstones(ctx, prefix, floor); err != nil {
			return err
		}
	}
	return nil
}

// segment purges what the oldest history rows below the compact revision tell,
// and those rows.
func (c *Compactor) segment(ctx context.Context, compact int64, floor engine.Stamp) (any, more bool, err error) {
	s := segment{engine: c.state.Engine, latest: make(map[string]latest)}
	it := s.engine.Iterate(engine.IterOptions{Lower: row.HistoryKey(0), Upper: row.HistoryKey(compact), At: c.state.Committed().Stamp})
	defer it.Close()
	for it.Next() {
		if err := ctx.Err(); err != nil {
			return false, false, err
		}
		if s.changes >= segmentChangesMax {
			more = true
			break
		}
		r := it.Row()
		h, err := row.DecodeHistory(r.Value)
		if err != nil {
			return false, false, fmt.Errorf("%w: %w", engine.ErrCorrupt, err)
		}
		s.add(&h)
		s.versions = append(s.versions, engine.Version{Key: r.Key, Stamp: r.Stamp})
	}
	if err := it.Err(); err != nil {
		return false, false, err
	}
	if err := s.nameTombstones(); err != nil {
		return false, false, err
	}
	if more {
		floor = s.end
	}
	if len(s.versions) == 0 {
		return false, false, nil
	}
	c.versions.Add(float64(len(s.versions)))
	return true, more, s.engine.Purge(floor, s.versions)
}

// segment is a run of revisions being purged.
type segment struct {
	engine   engine.Engine
	latest   map[string]latest
	versions []engine.Version
	changes  int
	end      engine.Stamp // of the last revision
}

// latest is a key's last change within the segment.
type latest struct {
	stamp   engine.Stamp
	deleted bool
}

// add names the versions that a revision's changes superseded.
func (s *segment) add(h *row.History) {
	s.end = engine.Stamp(h.Stamp)
	for _, change := range h.Changes {
		s.changes++
		key := string(change.Key)
		if before, ok := s.latest[key]; ok {
			s.versions = append(s.versions, engine.Version{Key: row.Key(change.Key), Stamp: before.stamp})
		}
		s.latest[key] = latest{s.end, change.Delete}
	}
}

// nameTombstones names the keys that the segment leaves deleted, with whatever
// is left of them from before.
func (s *segment) nameTombstones() error {
	for key, l := range s.latest {
		if !l.deleted {
			continue
		}
		versions, err := versionsOf(s.engine, row.Key([]byte(key)), l.stamp)
		if err != nil {
			return err
		}
		s.versions = append(s.versions, versions...)
	}
	return nil
}

// versionsOf are all versions of one row at or below a stamp.
func versionsOf(e engine.Engine, key []byte, at engine.Stamp) ([]engine.Version, error) {
	upper := append(append(make([]byte, 0, len(key)+1), key...), 0)
	it := e.Iterate(engine.IterOptions{Lower: key, Upper: upper, At: at, AllVersions: true, KeysOnly: true})
	defer it.Close()
	var all []engine.Version
	for it.Next() {
		r := it.Row()
		all = append(all, engine.Version{Key: r.Key, Stamp: r.Stamp})
	}
	return all, it.Err()
}

// tombstones names the rows of a kind that are gone.
func (c *Compactor) tombstones(ctx context.Context, prefix byte, floor engine.Stamp) error {
	e := c.state.Engine
	var versions []engine.Version
	it := e.Iterate(engine.IterOptions{Lower: []byte{prefix}, Upper: []byte{prefix + 1}, At: floor})
	defer it.Close()
	purge := func() error {
		if len(versions) == 0 {
			return nil
		}
		c.versions.Add(float64(len(versions)))
		err := e.Purge(floor, versions)
		versions = nil
		return err
	}
	for it.Next() {
		r := it.Row()
		if len(r.Value) > 0 {
			continue
		}
		of, err := versionsOf(e, r.Key, floor)
		if err != nil {
			return err
		}
		versions = append(versions, of...)
		if len(versions) >= segmentChangesMax {
			if err := errors.Join(purge(), ctx.Err()); err != nil {
				return err
			}
		}
	}
	return errors.Join(it.Err(), purge())
}

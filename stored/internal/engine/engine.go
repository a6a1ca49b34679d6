package engine

import (
	"errors"

	"github.com/quartet-kv/quartet/services/logid"
)

// Errors of every engine. They are wrapped with the operation; test with
// errors.Is.
var (
	// ErrNotFound is returned by Get when the key has no version at or below
	// the stamp.
	ErrNotFound = errors.New("engine: not found")
	// ErrCorrupt is returned by reads and Open that met bytes which are not what
	// was written. The store must be refilled.
	ErrCorrupt = errors.New("engine: corrupt")
	// ErrPoisoned is returned by everything after a Commit, Purge or Sync
	// failed: what is durable is unknown, so the process must stop.
	ErrPoisoned = errors.New("engine: poisoned by an earlier failure")
	// ErrClosed is returned by everything after Close.
	ErrClosed = errors.New("engine: closed")
	// ErrTooLarge is returned by Commit for a row beyond KeyBytesMax or
	// ValueBytesMax; nothing of that Commit is written and the engine is sound.
	ErrTooLarge = errors.New("engine: row too large")
)

// Limits of one row.
const (
	KeyBytesMax   = 60 << 10
	ValueBytesMax = 64 << 20
)

// Stamp is the store's own clock: the number of commands applied, the same on
// every store. Every row is written at the stamp of its command.
type Stamp uint64

// Position is where a store stands: the log entry applied last, and the stamp
// of its last command. The zero Position is an empty store.
type Position struct {
	Log   logid.ID
	Stamp Stamp
}

// Row is one version of one key. What a deleted key looks like is the caller's
// business: a tombstone is an ordinary value.
type Row struct {
	Key   []byte
	Value []byte
	Stamp Stamp
}

// Version names a Row.
type Version struct {
	Key   []byte
	Stamp Stamp
}

// IterOptions says what to iterate. The zero value with At set walks every key.
type IterOptions struct {
	// Lower and Upper bound the keys: [Lower, Upper). A nil Upper is no bound.
	Lower, Upper []byte
	// At hides all versions above it.
	At Stamp
	// AllVersions yields each version at or below At, newest first within a
	// key, instead of the newest one only: for copying a store. Versions that
	// were purged may still be among them. Not with Reverse.
	AllVersions bool
	// KeysOnly leaves Row.Value nil and is cheaper.
	KeysOnly bool
	// Reverse walks from Upper down to Lower.
	Reverse bool
}

// Engine is a durable multi-version map of rows. See the package comment for
// the promises; enginetest is the suite that every engine passes.
//
// Get, Iterate, Synced and Sizes may be called by any goroutine at any time,
// beside Close and after it too. Commit is called by one goroutine; Sync and Purge each by one
// goroutine, which may be another one.
type Engine interface {
	// Commit writes rows, all readable when it returns, and notes that the
	// store now stands at pos, which never goes back. Rows may be of many
	// stamps in any order, each version at most once; writing a version again
	// in a later Commit replaces it. Durability is
	// Sync's business. Commit keeps no reference to the slices' bytes after it
	// returned. It blocks while the engine has no room (that bounds memory).
	//
	// Rows are not checked against pos, so that an empty engine is filled by
	// Commits at the zero Position, then one at the position of what it holds.
	Commit(pos Position, rows []Row) error

	// Get returns the newest version of key at or below at, and its stamp. The
	// value is the caller's to keep and not to change. ErrNotFound if none.
	Get(key []byte, at Stamp) (value []byte, stamp Stamp, err error)

	// Iterate walks versions as they were at opts.At; rows committed above At
	// meanwhile never show. It holds resources until closed.
	Iterate(opts IterOptions) Iterator

	// Sync makes everything up to the position it returns survive a power cut:
	// the position of the last Commit that returned before Sync was called, or
	// of a later one.
	Sync() (Position, error)

	// Synced is the position of the last Sync, of this or an earlier life:
	// where replay starts after Open. Rows above it may be there, with holes.
	Synced() Position

	// Purge gives versions up for good: those named, which must be at or below
	// floor, and leave to the engine any version that a newer one at or below
	// floor supersedes. After it, reads below floor may miss rows; the caller
	// answers none. A named version may be the newest of its key (a tombstone),
	// if it names all older versions of that key too, now or earlier. The floor
	// never goes back and never exceeds Synced().Stamp (an error, and nothing is
	// purged). Space comes back in the background. A purge that was not synced
	// may be forgotten by a crash; purging again is harmless.
	Purge(floor Stamp, versions []Version) error

	// Sizes is what the engine occupies, at a cost that allows asking every
	// second.
	Sizes() Sizes

	// Close waits for the calls that run, then stops the engine's goroutines. It
	// syncs nothing that Sync did not; rows committed later may still be there
	// after it. An iterator that is open stops with ErrClosed at its next row.
	Close() error
}

// Sizes in bytes.
type Sizes struct {
	// Disk is what the files occupy.
	Disk int64
	// Live is the engine's estimate of what would remain after everything that
	// was purged is gone; never more than Disk.
	Live int64
}

// Iterator walks rows in key order. The usual loop:
//
//	it := e.Iterate(opts)
//	defer it.Close()
//	for it.Next() {
//		use(it.Row())
//	}
//	return it.Err()
//
// An iterator is used by one goroutine.
type Iterator interface {
	// Next moves to the next row, or returns false at the end or on an error.
	Next() bool
	// Row is the current row. Its bytes are the caller's to keep and not to
	// change.
	Row() Row
	// Err is what stopped the iterator, nil at the end of its range. A loop
	// that does not ask for it may take half a range for the whole.
	Err() error
	Close()
}

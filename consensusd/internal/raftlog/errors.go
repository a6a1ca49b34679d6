package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
)

var (
	// ErrNotExist is returned by Open when the directory holds no log.
	ErrNotExist = fmt.Errorf("raftlog: no log: %w", fs.ErrNotExist)

	// ErrExist is returned by Create when the directory holds a log already.
	ErrExist = fmt.Errorf("raftlog: there is a log already: %w", fs.ErrExist)

	// ErrClosed is returned by every write and read after Close.
	ErrClosed = errors.New("raftlog: closed")
)

// DamageError is returned by Open, and by reads, when bytes that were durable
// are not what was written. Nothing is changed on disk: a log that lost an
// acknowledged entry must not be repaired into one that looks whole.
type DamageError struct {
	File   string
	Offset int64
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("raftlog: %s is damaged at offset %d: %s; "+
		"this member's log cannot be trusted any more: remove the member from the cluster and add a new one with an empty data directory, "+
		"or bring back the file from the same disk if it was moved", e.File, e.Offset, e.Reason)
}

func damaged(file string, offset int64, format string, args ...any) error {
	return &DamageError{File: file, Offset: offset, Reason: fmt.Sprintf(format, args...)}
}

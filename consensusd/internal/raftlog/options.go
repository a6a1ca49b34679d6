package raftlog

import (
	"log/slog"
	"time"
)

// Options say where a log is and what bounds it. Zero values take the
// defaults below.
type Options struct {
	// Dir holds the segments and nothing else. Create makes it.
	Dir string
	// FS is the file system; nil is the operating system's.
	FS FS
	// SegmentBytes is the preallocated size of a segment. A batch larger than
	// this gets a segment of its own size. Default 64 MiB.
	SegmentBytes int64
	// CacheBytes bounds the entries kept in memory behind the last one, so
	// that followers which keep up are never read for from disk. Default 16 MiB.
	CacheBytes int64
	// Log is where recovery says what it found; nil discards it.
	Log *slog.Logger
	// OnAppend is told about every batch written: its size in the file and how
	// long the write and the sync took (0 when it needed none). It runs on the
	// appending goroutine and must return at once. May be nil.
	OnAppend func(bytes int, write, sync time.Duration)
}

// Limits of a log.
const (
	segmentBytesDefault = 64 << 20
	segmentBytesMin     = 4 << 10
	segmentBytesMax     = 1 << 30
	cacheBytesDefault   = 16 << 20
	// batchBytesMax keeps every offset in a segment within 32 bits.
	batchBytesMax = 1 << 30
	// bufferBytesKept is how large an encoding buffer is kept for the next
	// batch.
	bufferBytesKept = 4 << 20
	// readGapBytes: entries that lie at most this far apart are read together.
	readGapBytes = 16 << 10
	// entryOverheadBytes is what an entry costs in the cache besides its data.
	entryOverheadBytes = 96
)

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = OS{}
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = segmentBytesDefault
	}
	o.SegmentBytes = min(max(o.SegmentBytes, segmentBytesMin), segmentBytesMax)
	if o.CacheBytes == 0 {
		o.CacheBytes = cacheBytesDefault
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

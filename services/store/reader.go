package store

import (
	"context"
	"log/slog"
	"time"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/logid"
)

// ReaderConfig says which store to read and how much to ask at a time. Zero
// limits take their defaults.
type ReaderConfig struct {
	// Prefer is the member whose store is asked first; 0 is whoever leads.
	Prefer uint64
	// BatchReadsMax and BatchBytesMax bound one message of questions. Defaults
	// 1024 and 1 MiB.
	BatchReadsMax int
	BatchBytesMax int
	// PendingReadsMax bounds the reads that wait for an answer, per store;
	// beyond it Read refuses with errs.ErrTooManyRequests. Default 65536.
	PendingReadsMax int
	// SlowAfter is how long a store may take before another one is asked the
	// same. Default 1 s.
	SlowAfter time.Duration
}

// Floor is what a read must not answer below.
type Floor struct {
	// Index is the position that the store must have applied, in Epoch; 0 asks
	// for nothing (a serializable read).
	Index logid.Index
	Epoch logid.Epoch
	// Revision that the asker has answered with already.
	Revision int64
}

// Result is the answer to one read.
type Result struct {
	*storepb.ReadResult
	// Term is the highest raft term that the store has seen.
	Term logid.Term
	// Member whose store answered.
	Member uint64
}

// Reader asks stores small questions, many per message, on one stream per
// store. Reads that differ in what they wait for (serializable or not) never
// share a message.
type Reader struct{}

// NewReader returns a Reader that asks nothing before Run. A nil log discards.
func NewReader(c ReaderConfig, d *cluster.Directory, log *slog.Logger) *Reader { return &Reader{} }

// Run carries reads until ctx ends, and returns ctx's error.
func (r *Reader) Run(ctx context.Context) error { panic("todo") }

// Read answers one question at a store that has reached the floor. It asks the
// preferred store first and the others when that one breaks or is slow, until
// ctx ends (ctx's error).
//
// A Result with a ReadResult comes with the error that the store named, as the
// status that etcd answers with; Large says that the answer must be asked of
// Scan. Without a ReadResult the error is ctx's, errs.ErrTooManyRequests or
// errs.ErrStopped.
func (r *Reader) Read(ctx context.Context, read *storepb.ReadRequest, floor Floor) (Result, error) {
	panic("todo")
}

// Scan sends one large range to each, chunk by chunk, from the preferred store
// or, if that fails before its first chunk, from another one. A failure after
// the first chunk is returned: the chunks belong to one store's iterator.
// Req.MinIndex, Epoch and MinRevision are the floor.
func (r *Reader) Scan(ctx context.Context, req *storepb.ScanRequest, each func(*storepb.ScanChunk) error) error {
	panic("todo")
}

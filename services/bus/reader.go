package bus

import (
	"context"
	"log/slog"
	"time"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/services/logid"
)

// Position is where a receiver stands.
type Position struct {
	At       logid.ID
	Revision int64
	// The rest is news that came with the position; it is zero in a start.
	CompactRevision int64
	AuthRevision    uint64
	AlarmVersion    uint64
	Term            logid.Term
}

// Feed is a lossless stream of batches, as of Store.Follow.
type Feed interface {
	Recv() (*buspb.Batch, error)
}

// Pull opens a Feed from the position after the given one, at any store; the
// zero position asks from now on. It ends with ctx. A store that no longer
// holds the position answers errs.ErrFollowBehind (from Pull or the first
// Recv).
type Pull func(ctx context.Context, after logid.ID) (Feed, error)

// Sink is who reads. Its methods are called from one goroutine, one at a time.
type Sink interface {
	// Accept takes the next batch: PrevIndex and PrevRevision are where the
	// Sink stands, revisions that it has are left out.
	Accept(ctx context.Context, b *buspb.Batch) error
	// Reset says that what lies between the Sink's position and p cannot be had
	// as batches: the Sink must fetch the state or the history up to p from a
	// store. The batches after p follow.
	Reset(ctx context.Context, p Position) error
}

// ReaderConfig is what a Reader needs. Zero limits take their defaults.
type ReaderConfig struct {
	// ClusterID whose news is taken; 0 takes the first that comes.
	ClusterID uint64
	// Start is where the Sink stands; the zero Position begins with a Reset.
	Start      Position
	Subscriber Subscriber
	Pull       Pull
	Log        *slog.Logger

	// SilenceMax is how long the bus may say nothing before stores are asked.
	// Default 350 ms: an idle publisher says so every 100 ms.
	SilenceMax time.Duration
	// AheadBatchesMax bounds the batches from beyond a gap that are kept while
	// the gap is filled. Default 256.
	AheadBatchesMax int
}

// Reader makes of a bus that may lose, repeat, reorder or stop, and of stores
// that can be asked, one sequence without gaps and repetitions.
type Reader struct{}

// NewReader returns a Reader that reads nothing before Run.
func NewReader(c ReaderConfig) *Reader { return &Reader{} }

// Run reads until ctx ends or the Sink returns an error, and returns that.
func (r *Reader) Run(ctx context.Context, sink Sink) error { panic("todo") }

// Want says that the Sink needs to reach an index soon, for instance since a
// read waits for it: if the bus does not bring it at once, a store is asked.
func (r *Reader) Want(index logid.Index) { panic("todo") }

package bus

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/services/errs"
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
// zero position asks from now on, and the feed's first batch then says where
// that is. It ends with ctx. A store that no longer holds the position answers
// errs.ErrFollowBehind (from Pull or the first Recv).
type Pull func(ctx context.Context, after logid.ID) (Feed, error)

// Sink is who reads. Its methods are called from one goroutine, one at a time.
// They may wait: the bus meanwhile drops what its queue does not hold, and the
// Reader fetches that afterwards.
type Sink interface {
	// Accept takes the next batch: PrevIndex and PrevRevision are where the
	// Sink stands, revisions that it has are left out. Pull is never set. A
	// batch at the Sink's own position tells of a new raft term.
	Accept(ctx context.Context, b *buspb.Batch) error
	// Reset says that what lies between the Sink's position and p cannot be had
	// as batches: the Sink must fetch the state or the history up to p from a
	// store. The batches after p follow. P is below the Sink's position only if
	// the store's history contradicts the Sink's.
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
	// Log; nil discards.
	Log *slog.Logger

	// SilenceMax is how long the bus may say nothing before a store is asked.
	// Default 350 ms: an idle publisher says so every 100 ms.
	SilenceMax time.Duration
	// WantWait is how long the bus may take to bring what the Sink wants before
	// a store is asked. Default 10 ms.
	WantWait time.Duration
	// AheadBatchesMax and AheadBytesMax bound the batches from beyond a gap that
	// are kept while the gap is filled. Defaults 1024 and 16 MiB.
	AheadBatchesMax int
	AheadBytesMax   int
	// RetryMin and RetryMax bound the pause before a failed pull or subscription
	// is tried again. Defaults 10 ms and 500 ms.
	RetryMin, RetryMax time.Duration
}

func (c *ReaderConfig) setDefaults() {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	for _, limit := range []struct {
		value   *time.Duration
		initial time.Duration
	}{
		{&c.SilenceMax, 350 * time.Millisecond},
		{&c.WantWait, 10 * time.Millisecond},
		{&c.RetryMin, 10 * time.Millisecond},
		{&c.RetryMax, 500 * time.Millisecond},
	} {
		if *limit.value <= 0 {
			*limit.value = limit.initial
		}
	}
	if c.AheadBatchesMax <= 0 {
		c.AheadBatchesMax = 1024
	}
	if c.AheadBytesMax <= 0 {
		c.AheadBytesMax = 16 << 20
	}
}

// Reader makes of a bus that may lose, repeat, reorder or stop, and of stores
// that can be asked, one sequence without gaps and repetitions. Bus and pulled
// batches are judged by one rule, so it never matters which brings what.
type Reader struct {
	config ReaderConfig
	log    *slog.Logger
	want   atomic.Uint64
	wanted chan struct{}
	pulls  atomic.Int64
}

// NewReader returns a Reader that reads nothing before Run.
func NewReader(c ReaderConfig) *Reader {
	c.setDefaults()
	return &Reader{config: c, log: c.Log, wanted: make(chan struct{}, 1)}
}

// Want says that the Sink needs to reach an index soon, for instance since a
// read waits for it: if the bus does not bring it at once, a store is asked. It
// never blocks.
func (r *Reader) Want(index logid.Index) {
	for {
		old := r.want.Load()
		if uint64(index) <= old {
			return
		}
		if r.want.CompareAndSwap(old, uint64(index)) {
			break
		}
	}
	select {
	case r.wanted <- struct{}{}:
	default:
	}
}

// Pulls is how many times a store was asked since the start.
func (r *Reader) Pulls() int64 { return r.pulls.Load() }

// Run reads until ctx ends or the Sink returns an error, and returns that. It is
// called once.
func (r *Reader) Run(ctx context.Context, sink Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	heard := make(chan news)
	wg.Go(func() { r.hear(ctx, heard) })
	s := &sequence{reader: r, config: &r.config, sink: sink, wg: &wg, position: r.config.Start, cluster: r.config.ClusterID}
	s.known = s.position != Position{}
	s.retry = r.config.RetryMin
	return s.run(ctx, heard)
}

// news is what the bus or a store brings: a batch, a lapse or an end.
type news struct {
	batch *buspb.Batch
	err   error
}

// hear hands over what the bus says, and subscribes again when it ends.
func (r *Reader) hear(ctx context.Context, heard chan<- news) {
	pause := r.config.RetryMin
	for ctx.Err() == nil {
		sub, err := r.config.Subscriber.Subscribe(ctx)
		if err == nil {
			err = forward(ctx, func() (*buspb.Batch, error) { return sub.Recv(ctx) }, heard, func() { pause = r.config.RetryMin })
			sub.Close()
		}
		if ctx.Err() != nil {
			return
		}
		r.log.Debug("bus subscription ended", "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, r.config.RetryMax)
	}
}

// forward hands batches and lapses over until recv fails.
func forward(ctx context.Context, recv func() (*buspb.Batch, error), to chan<- news, got func()) error {
	for {
		b, err := recv()
		if err != nil && !errors.Is(err, ErrLapsed) {
			return err
		}
		got()
		select {
		case to <- news{batch: b, err: err}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow hands over what a store says after a position, then the end.
func (r *Reader) follow(ctx context.Context, after logid.ID, to chan<- news) {
	r.pulls.Add(1)
	feed, err := r.config.Pull(ctx, after)
	if err == nil {
		err = forward(ctx, feed.Recv, to, func() {})
	}
	select {
	case to <- news{err: err}:
	case <-ctx.Done():
	}
}

// behind tells whether a store said that it no longer holds a position.
func behind(err error) bool { return errors.Is(err, errs.ErrFollowBehind) }

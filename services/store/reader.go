package store

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

// ReaderConfig says which store to read and how much to ask at a time. Zero
// limits take their defaults.
type ReaderConfig struct {
	// Prefer is the member whose store is asked first; 0 is whoever leads.
	Prefer uint64
	// BatchReadsMax and BatchBytesMax bound one message of questions; a single
	// question may exceed the bytes. Defaults 1024 and 1 MiB.
	BatchReadsMax int
	BatchBytesMax int
	// InflightBatchesMax bounds the messages that are not answered, per store
	// and kind of floor: while that many are under way, reads gather. Default 8.
	InflightBatchesMax int
	// PendingReadsMax bounds the reads that wait for an answer, per store;
	// beyond it Read refuses with errs.ErrTooManyRequests. Default 65536.
	PendingReadsMax int
	// SlowAfter is how long a store may take before another one is asked the
	// same, to a quarter; it is then avoided for as long, and for longer each time
	// that it does not answer at all. Default 1 s.
	SlowAfter time.Duration
	// BrokenPause is how long a store is avoided after its stream broke; default
	// 100 ms.
	BrokenPause time.Duration
}

func (c *ReaderConfig) setDefaults() {
	for _, limit := range []struct {
		value   *int
		initial int
	}{{&c.BatchReadsMax, 1024}, {&c.BatchBytesMax, 1 << 20}, {&c.InflightBatchesMax, 8}, {&c.PendingReadsMax, 65536}} {
		if *limit.value <= 0 {
			*limit.value = limit.initial
		}
	}
	if c.SlowAfter <= 0 {
		c.SlowAfter = time.Second
	}
	if c.BrokenPause <= 0 {
		c.BrokenPause = 100 * time.Millisecond
	}
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
type Reader struct {
	config    ReaderConfig
	directory *cluster.Directory
	log       *slog.Logger

	mu struct {
		sync.Mutex
		links   map[uint64]*link
		start   func(*link) // nil before Run
		stopped bool
	}
}

// NewReader returns a Reader that asks nothing before Run. A nil log discards.
func NewReader(c ReaderConfig, d *cluster.Directory, log *slog.Logger) *Reader {
	c.setDefaults()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Reader{config: c, directory: d, log: log}
	r.mu.links = make(map[uint64]*link)
	return r
}

// Run carries reads until ctx ends, and returns ctx's error. It is called once.
func (r *Reader) Run(ctx context.Context) error {
	var links sync.WaitGroup
	start := func(l *link) { links.Go(func() { l.run(ctx) }) }
	r.mu.Lock()
	r.mu.start = start
	for _, l := range r.mu.links {
		start(l)
	}
	r.mu.Unlock()

	<-ctx.Done()
	r.mu.Lock()
	r.mu.stopped = true // no link starts from here on
	r.mu.Unlock()
	links.Wait()
	return ctx.Err()
}

// Read answers one question at a store that has reached the floor. It asks the
// preferred store first and the others when that one breaks, is not ready or is
// slow, until ctx ends (ctx's error). It sets read's id in a copy.
//
// A Result with a ReadResult comes with the error that the store named, as the
// status that etcd answers with; Large says that the answer must be asked of
// Scan. Without a ReadResult the error is ctx's, errs.ErrTooManyRequests or
// errs.ErrStopped. It may be called before Run.
func (r *Reader) Read(ctx context.Context, read *storepb.ReadRequest, floor Floor) (Result, error) {
	var tried []uint64
	for {
		changed := r.directory.Changed()
		l, err := r.pick(tried)
		if err != nil {
			return Result{}, err
		}
		if l == nil {
			tried = tried[:0]
			if err := waitChange(ctx, changed, r.config.BrokenPause/4); err != nil {
				return Result{}, err
			}
			continue
		}
		result, err := l.ask(ctx, read, floor)
		if !errors.Is(err, errAskAnother) {
			return result, err
		}
		tried = append(tried, l.member)
	}
}

// Scan sends one large range to each, chunk by chunk, from the preferred store
// or, if that fails before its first chunk, from another one. A failure after
// the first chunk is returned, and so is each's own error: the chunks belong to
// one store's iterator. Req.MinIndex, Epoch and MinRevision are the floor.
func (r *Reader) Scan(ctx context.Context, req *storepb.ScanRequest, each func(*storepb.ScanChunk) error) error {
	var tried []uint64
	for {
		changed := r.directory.Changed()
		l, err := r.pick(tried)
		if err != nil {
			return err
		}
		if l == nil {
			tried = tried[:0]
			if err := waitChange(ctx, changed, r.config.BrokenPause); err != nil {
				return err
			}
			continue
		}
		began, err := r.scan(ctx, l.member, req, each)
		if began || err == nil || !storeFailed(err) || ctx.Err() != nil {
			return err
		}
		r.log.Debug("scan goes to another store", "member", l.member, "err", err)
		tried = append(tried, l.member)
	}
}

func (r *Reader) scan(ctx context.Context, member uint64, req *storepb.ScanRequest, each func(*storepb.ScanChunk) error) (began bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := r.directory.StoreBulk(member)
	if err != nil {
		return false, err
	}
	stream, err := client.Scan(ctx, req)
	if err != nil {
		return false, err
	}
	for {
		chunk, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return began, err
		}
		began = true
		if err := each(chunk); err != nil || chunk.Last {
			return began, err
		}
	}
}

// pick chooses the store to ask next: the preferred one, then the others in
// turn, those that are avoided last. Nil when all were tried or none is known.
func (r *Reader) pick(tried []uint64) (*link, error) {
	view := r.directory.View()
	first := r.config.Prefer
	if first == 0 {
		first = view.Leader
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.stopped {
		return nil, errs.ErrStopped
	}
	if _, known := view.Member(first); known && !slices.Contains(tried, first) {
		if l := r.linkLocked(first); !l.avoided() {
			return l, nil
		}
	}
	var last *link
	for _, m := range view.Members {
		if slices.Contains(tried, m.Id) || m.Learner {
			continue
		}
		l := r.linkLocked(m.Id)
		if !l.avoided() {
			return l, nil
		}
		last = l
	}
	return last, nil
}

func (r *Reader) linkLocked(member uint64) *link {
	if l := r.mu.links[member]; l != nil {
		return l
	}
	l := newLink(r, member)
	r.mu.links[member] = l
	if r.mu.start != nil {
		r.mu.start(l)
	}
	return l
}

// waitChange returns after d or when the directory changes; ctx's error when it
// ends first.
func waitChange(ctx context.Context, changed <-chan struct{}, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-changed:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

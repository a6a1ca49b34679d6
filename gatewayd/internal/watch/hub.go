package watch

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/bus"
	"github.com/quartet-kv/quartet/services/clock"
	"github.com/quartet-kv/quartet/services/invariant"
	"github.com/quartet-kv/quartet/services/logid"
)

// Deps is what the hub needs from its gateway. Header, Floor and History are
// required.
type Deps struct {
	// Log is for what an operator should know; nil discards.
	Log *slog.Logger
	// Metrics takes the hub's metrics; nil registers none.
	Metrics prometheus.Registerer
	// Clock times progress and retries; nil is the machine's.
	Clock clock.Clock

	// Header fills a response's header: cluster, member, raft term, and exactly
	// the revision given, 0 included. The client is about to be told this
	// revision, so the gateway raises its floor to it. It must not block.
	Header func(revision int64) *pb.ResponseHeader
	// Floor is the highest revision that this gateway has answered any client
	// with. It must not block.
	Floor func() int64
	// History opens the events of a range of keys and revisions at a store,
	// preferring one that has them; see storepb.HistoryRequest. Key and range
	// end are as in etcd's requests. The hub asks again after an error.
	History func(ctx context.Context, r *storepb.HistoryRequest) (HistoryStream, error)
	// Authorize says whether the client of ctx may watch a range, given as the
	// client sent it but for an empty key, which is "\0". Its error's text is
	// the reason that the client sees. Nil allows everything. It may block.
	Authorize func(ctx context.Context, key, rangeEnd []byte) error
}

// HistoryStream is the answer to a HistoryRequest. Recv returns io.EOF after the
// chunk whose through is the end that was asked for.
type HistoryStream interface {
	Recv() (*storepb.HistoryChunk, error)
}

// Hub serves etcd's Watch and is the bus.Sink that its events come from. It is
// safe for concurrent use.
//
//	New ─▶ Run ─▶ (first Accept or Reset: streams are served) ─▶ ctx ends: streams end
type Hub struct {
	pb.UnimplementedWatchServer

	cfg     Config
	deps    Deps
	metrics *metrics

	news     chan news
	requests chan request
	results  chan result

	ready     chan struct{} // closed when current is known
	readyOnce sync.Once
	stopping  chan struct{} // closed when Run is about to return
	readers   sync.WaitGroup

	// The rest belongs to Run's goroutine.

	begun   bool // the rest is known
	epoch   logid.Epoch
	current int64 // the newest revision that watchers were given
	compact int64
	ring    ring

	streams     map[*stream]struct{}
	index       *index[*watcher]       // the synced watchers
	unsynced    map[*watcher]struct{}  // those that wait for a reader
	states      [stateCount]int        // watchers by state
	cohorts     map[*cohort]struct{}   // those that have a reader
	waiting     map[*stream]struct{}   // manual progress to be answered later
	notified    map[*stream]struct{}   // streams with periodic progress
	retryAt     dueTime                // no reader starts before
	failing     bool                   // the last read of history failed
	lowest      bool                   // chooseCohort's turn
	rand        *rand.Rand             // jitter of progress
	connections map[string]*connection // by the client's address
	toWake      []*connection          // have senders to wake
	dispatch    dispatchState          // memory that dispatch reuses
	runCtx      context.Context        // of the readers
}

// dueTime is a time of Deps.Clock.
type dueTime = time.Duration

// news is what the bus brings: a batch, or a position to start anew from.
type news struct {
	batch *buspb.Batch
	reset *bus.Position
}

type requestKind int

const (
	opened requestKind = iota
	created
	canceled
	progressed
	drainedOutbox
	closed
)

// request is what a stream asks of the hub.
type request struct {
	stream *stream
	kind   requestKind
	create *pb.WatchCreateRequest
	denied error
	id     int64
}

// New returns a hub that serves nothing before Run.
func New(cfg Config, deps Deps) (*Hub, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Header == nil || deps.Floor == nil || deps.History == nil {
		return nil, fmt.Errorf("watch: Header, Floor and History are required")
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if deps.Clock == nil {
		deps.Clock = clock.Real()
	}
	return &Hub{
		cfg: cfg, deps: deps, metrics: newMetrics(deps.Metrics),
		news: make(chan news), requests: make(chan request), results: make(chan result),
		ready: make(chan struct{}), stopping: make(chan struct{}),
		ring:    ring{bytesMax: cfg.RingBytesMax},
		streams: make(map[*stream]struct{}), index: newIndex[*watcher](), unsynced: make(map[*watcher]struct{}),
		cohorts: make(map[*cohort]struct{}), waiting: make(map[*stream]struct{}), notified: make(map[*stream]struct{}),
		connections: make(map[string]*connection),
		rand:        rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}, nil
}

// Accept takes the next batch of the bus. It waits while the hub is busy; what
// clients ask after it returned finds the batch there. It returns ctx's error,
// or etcd's "server stopped" once Run has ended.
func (h *Hub) Accept(ctx context.Context, b *buspb.Batch) error {
	return h.tell(ctx, news{batch: b})
}

// Reset says that batches up to p are not to be had; watchers read the history
// up to there. It waits and fails as Accept does.
func (h *Hub) Reset(ctx context.Context, p bus.Position) error {
	return h.tell(ctx, news{reset: &p})
}

func (h *Hub) tell(ctx context.Context, n news) error {
	select {
	case h.news <- n:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-h.stopping:
		return rpctypes.ErrGRPCStopped
	}
}

// post hands a request to the hub; false when the hub has stopped. Nothing is
// queued in between, so a stream whose opening was taken is ended by Run.
func (h *Hub) post(r request) bool {
	select {
	case h.requests <- r:
		return true
	case <-h.stopping:
		return false
	}
}

// Run serves until ctx ends, then ends every stream with etcd's "server
// stopped", on which clients resume elsewhere, and returns ctx's error.
func (h *Hub) Run(ctx context.Context) error {
	runCtx, cancel := context.WithCancel(ctx)
	h.runCtx = runCtx
	ticker := h.deps.Clock.Ticker(min(tickMax, h.cfg.ProgressInterval/10))
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case n := <-h.news:
			h.onNews(n)
		case r := <-h.requests:
			h.onRequest(r)
		case r := <-h.results:
			h.onResult(r)
		case <-ticker.C():
			h.onTick(h.deps.Clock.Now())
		case <-ctx.Done():
		}
		h.maybeRead()
		h.wake()
		h.metrics.observe(h)
		if invariant.On {
			h.check()
		}
	}
	close(h.stopping)
	cancel()
	h.readers.Wait()
	for s := range h.streams {
		s.out.end(rpctypes.ErrGRPCStopped)
	}
	return ctx.Err()
}

func (h *Hub) onNews(n news) {
	if n.reset != nil {
		h.accept(n.reset.At.Epoch, n.reset.Revision, n.reset.Revision, n.reset.CompactRevision, nil)
	} else if b := n.batch; !b.Pull {
		h.accept(logid.Epoch(b.GetAt().GetEpoch()), b.PrevRevision, b.Revision, b.CompactRevision, b.Revisions)
	} else {
		h.accept(logid.Epoch(b.GetAt().GetEpoch()), b.Revision, b.Revision, b.CompactRevision, nil)
	}
	h.readyOnce.Do(func() { close(h.ready) })
}

func (h *Hub) onRequest(r request) {
	s := r.stream
	if s.closed {
		return
	}
	switch r.kind {
	case opened:
		h.streams[s] = struct{}{}
		s.connection = h.connectionOf(s.rpc.Context())
	case created:
		h.onCreate(s, r.create, r.denied)
	case canceled:
		h.onCancel(s, r.id)
	case progressed:
		h.onProgressRequest(s)
	case drainedOutbox:
		h.onDrained(s)
	case closed:
		h.onClosed(s)
	}
}

func (h *Hub) onClosed(s *stream) {
	s.closed = true
	for _, w := range s.watchers {
		h.forget(w)
	}
	h.metrics.pending.Add(-int64(s.out.leftover()))
	h.leaveConnection(s.connection)
	delete(h.streams, s)
	delete(h.waiting, s)
	delete(h.notified, s)
}

package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/clock"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/stored/internal/apply"
	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/leases"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
	"github.com/quartet-kv/quartet/stored/internal/outcome"
	"github.com/quartet-kv/quartet/stored/internal/publish"
	"github.com/quartet-kv/quartet/stored/internal/row"
)

// receivedMax is how many responses of Deliver wait to be applied.
const receivedMax = 4

// Config of a Pipeline.
type Config struct {
	// Consensus are the addresses to follow, the own member's first.
	Consensus []string
	// Store is the stable name that consensusd knows this store by.
	Store string
	// SyncEvery and SyncBytes bound what is not synced.
	SyncEvery time.Duration
	SyncBytes int64
	// BatchBytesMax bounds the rows that gather while the engine commits.
	BatchBytesMax int
}

// Metrics of a Pipeline.
type Metrics struct {
	Entries, Commands, Revisions prometheus.Counter
	ApplySeconds, CommitSeconds  prometheus.Observer
	SyncSeconds                  prometheus.Observer
	Applied, Synced, Revision    prometheus.Gauge
}

// Deps are what a Pipeline joins.
type Deps struct {
	Dialer  dial.Dialer
	Clock   clock.Clock
	Log     *slog.Logger
	Engine  engine.Engine
	State   *mvcc.State
	Machine *apply.Machine
	Hub     *outcome.Hub
	Ring    *publish.Ring
	Leases  *leases.Feed
	Metrics Metrics
}

// Pipeline of one store.
type Pipeline struct {
	Config
	Deps

	received chan *consensuspb.DeliverResponse
	commits  chan *apply.Batch
	done     chan error
	// dirty counts the bytes that were committed since the last sync.
	dirty    atomic.Int64
	wakeSync chan struct{}
	progress chan struct{} // one token: there is progress to report
	member   atomic.Uint64
	gateways atomic.Pointer[map[uint64]row.Session]
	synced   atomic.Pointer[syncPoint]
}

// syncPoint is the last sync; next is closed when there is a later one.
type syncPoint struct {
	engine.Position
	next chan struct{}
}

// New returns a Pipeline that does nothing before Run.
func New(c Config, d Deps) *Pipeline {
	p := &Pipeline{
		Config:   c,
		Deps:     d,
		received: make(chan *consensuspb.DeliverResponse, receivedMax),
		commits:  make(chan *apply.Batch, 1),
		done:     make(chan error, 1),
		wakeSync: make(chan struct{}, 1),
		progress: make(chan struct{}, 1),
	}
	p.synced.Store(&syncPoint{d.Engine.Synced(), make(chan struct{})})
	p.rememberGateways()
	return p
}

// Member is the id of the member whose log is followed first; 0 until it is
// known.
func (p *Pipeline) Member() uint64 { return p.member.Load() }

// Gateways are the open sessions of those who serve clients.
func (p *Pipeline) Gateways() map[uint64]row.Session { return *p.gateways.Load() }

// WaitSynced waits until a stamp is synced.
func (p *Pipeline) WaitSynced(ctx context.Context, stamp engine.Stamp) error {
	for {
		s := p.synced.Load()
		if s.Stamp >= stamp {
			return nil
		}
		token(p.wakeSync)
		select {
		case <-s.next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Run follows the log until ctx ends; then it commits and syncs what was
// applied. An error says that the store cannot go on.
func (p *Pipeline) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.receive(ctx) })
	g.Go(func() error {
		defer close(p.commits)
		return p.apply(ctx)
	})
	g.Go(p.commit)
	g.Go(func() error { return p.sync(ctx) })
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if err == nil {
		err = p.syncOnce()
	}
	return err
}

// apply is the apply loop.
func (p *Pipeline) apply(ctx context.Context) error {
	var committing *apply.Batch
	for {
		bytes, pending := p.Machine.Pending()
		if pending && committing == nil {
			committing = p.Machine.Take()
			p.commits <- committing
			continue
		}
		received := p.received
		if bytes >= p.BatchBytesMax {
			received = nil
		}
		select {
		case r := <-received:
			if err := p.applyResponse(r); err != nil {
				return err
			}
		case err := <-p.done:
			if err != nil {
				return fmt.Errorf("commit to the engine: %w", err)
			}
			p.onCommitted(committing)
			committing = nil
		case <-ctx.Done():
			return p.drain(committing)
		}
	}
}

// drain commits what was applied, before the store stops.
func (p *Pipeline) drain(committing *apply.Batch) error {
	for {
		if committing == nil {
			if _, pending := p.Machine.Pending(); !pending {
				return nil
			}
			committing = p.Machine.Take()
			p.commits <- committing
		}
		if err := <-p.done; err != nil {
			return fmt.Errorf("commit to the engine: %w", err)
		}
		p.onCommitted(committing)
		committing = nil
	}
}

// applyResponse applies and tells.
func (p *Pipeline) applyResponse(r *consensuspb.DeliverResponse) error {
	start := p.Clock.Now()
	effects, err := p.Machine.Apply(r)
	if err != nil {
		return err
	}
	view := p.Machine.View()
	p.State.Publish(view)
	p.Hub.Apply(effects.Outcomes, view.Term)
	p.Ring.Add(batchOf(effects, &view), effects.Bytes, r.Publish)
	p.Leases.Add(effects, &view)
	for i := range effects.Outcomes {
		if k := effects.Outcomes[i].Kind; k == outcome.Opened || k == outcome.Closed {
			p.rememberGateways()
			break
		}
	}
	p.observe(r, effects, &view, start)
	token(p.progress)
	return nil
}

func (p *Pipeline) observe(r *consensuspb.DeliverResponse, effects *apply.Effects, view *mvcc.View, start time.Duration) {
	if len(r.Entries) == 0 {
		return
	}
	m := &p.Metrics
	m.ApplySeconds.Observe((p.Clock.Now() - start).Seconds())
	m.Entries.Add(float64(len(r.Entries)))
	m.Commands.Add(float64(len(effects.Outcomes)))
	m.Revisions.Add(float64(len(effects.Revisions)))
	m.Applied.Set(float64(view.Log.Index))
	m.Revision.Set(float64(view.Revision))
}

// batchOf is the news of what was applied.
func batchOf(e *apply.Effects, v *mvcc.View) *buspb.Batch {
	return &buspb.Batch{
		ClusterId: v.ClusterID, At: v.Log.Proto(), PrevIndex: uint64(e.Prev.Index),
		PrevRevision: e.PrevRevision, Revision: v.Revision, CompactRevision: v.Compact,
		RaftTerm: uint64(v.Term), Revisions: e.Revisions,
	}
}

func (p *Pipeline) onCommitted(b *apply.Batch) {
	p.Machine.Committed(b)
	p.State.Commit(b.Position, b.Revision)
	if p.dirty.Add(int64(b.Bytes)) >= p.SyncBytes {
		token(p.wakeSync)
	}
}

// commit gives batches to the engine.
func (p *Pipeline) commit() error {
	for b := range p.commits {
		start := p.Clock.Now()
		err := p.Engine.Commit(b.Position, b.Rows)
		p.Metrics.CommitSeconds.Observe((p.Clock.Now() - start).Seconds())
		p.done <- err
		if err != nil {
			return fmt.Errorf("commit to the engine: %w", err)
		}
	}
	return nil
}

// sync makes the engine durable from time to time.
func (p *Pipeline) sync(ctx context.Context) error {
	tick := p.Clock.Ticker(p.SyncEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C():
		case <-p.wakeSync:
		case <-ctx.Done():
			return nil
		}
		if err := p.syncOnce(); err != nil {
			return err
		}
	}
}

func (p *Pipeline) syncOnce() error {
	committed := p.State.Committed().Position
	if last := p.synced.Load(); last.Position == committed {
		return nil
	}
	p.dirty.Store(0)
	start := p.Clock.Now()
	pos, err := p.Engine.Sync()
	if err != nil {
		return fmt.Errorf("sync the engine: %w", err)
	}
	p.Metrics.SyncSeconds.Observe((p.Clock.Now() - start).Seconds())
	p.Metrics.Synced.Set(float64(pos.Log.Index))
	close(p.synced.Swap(&syncPoint{pos, make(chan struct{})}).next)
	token(p.progress)
	return nil
}

func (p *Pipeline) rememberGateways() {
	all := p.Machine.Gateways()
	p.gateways.Store(&all)
}

// token leaves one token in a channel of one.
func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

package lessor

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/leasepb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/clock"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

// Proposer puts a command into the log, once, and waits for its outcome.
type Proposer interface {
	Propose(ctx context.Context, kind logpb.Command_Kind, body []byte) (*storepb.Outcome, error)
}

// ReadIndexer says up to where a feed must be to show all that was
// acknowledged before the call.
type ReadIndexer interface {
	Wait(ctx context.Context) (logid.ID, logid.Term, error)
}

// Directory says who leads and reaches the other lessors.
type Directory interface {
	View() cluster.View
	Changed() <-chan struct{}
	Lessor(member uint64) (leasepb.LessorClient, error)
}

// Metrics are those of the machine.
type Metrics struct {
	Leases, Primary           prometheus.Gauge
	Claims, Renewals, Expired prometheus.Counter
}

// Deps is what a Lessor stands on.
type Deps struct {
	Session   Proposer
	Index     ReadIndexer
	Directory Directory
	// OpenFeed reaches the own member's store: it returns the member's id and
	// the stream of lease records and changes.
	OpenFeed func(ctx context.Context) (self uint64, feed storepb.Store_LeasesClient, err error)
	Clock    clock.Clock
	Log      *slog.Logger
	Metrics  Metrics
}

// Limits of the loop.
const (
	// tick bounds how late a lease expires, and the pauses between passes.
	tick = 100 * time.Millisecond
	// inboxDepth is how many messages wait for a pass.
	inboxDepth = 256
	// passMessagesMax bounds what one pass takes.
	passMessagesMax = 1024
	// askMax bounds one question for a read index; it is asked again after.
	askMax = 5 * time.Second
	// proposeMax bounds one proposal. What became of it shows in the feed.
	proposeMax = 10 * time.Second
	// probeMax is how long a primary may take to answer.
	probeMax = time.Second
	// feedPauseMin and feedPauseMax bound the pause before the feed is opened
	// again.
	feedPauseMin = 20 * time.Millisecond
	feedPauseMax = 500 * time.Millisecond
)

// Lessor runs the machine.
type Lessor struct {
	deps    Deps
	machine *machine
	inbox   chan func(*machine)
	stopped chan struct{}
	// tasks are what the loop started and waits for.
	tasks sync.WaitGroup
}

// New returns a Lessor that does nothing before Run.
func New(cfg Config, deps Deps) *Lessor {
	m := newMachine(cfg, deps.Metrics)
	m.real = deps.Clock.Now()
	return &Lessor{deps: deps, machine: m, inbox: make(chan func(*machine), inboxDepth), stopped: make(chan struct{})}
}

// Run follows the feed, claims, renews and expires until ctx ends; it returns
// ctx's error. Requests that wait then are answered with errs.ErrStopped. It is
// called once.
func (l *Lessor) Run(ctx context.Context) error {
	l.tasks.Go(func() { l.follow(ctx) })
	ticker := l.deps.Clock.Ticker(tick)
	defer ticker.Stop()
	for ctx.Err() == nil {
		changed := l.deps.Directory.Changed()
		l.machine.onView(l.view())
		select {
		case message := <-l.inbox:
			l.pass(ctx, message)
		case <-ticker.C():
			l.pass(ctx, nil)
		case <-changed:
			l.machine.onView(l.view())
			l.pass(ctx, nil)
		case <-ctx.Done():
		}
	}
	l.machine.failAll(errs.ErrStopped)
	l.execute(ctx)
	close(l.stopped)
	l.tasks.Wait()
	return ctx.Err()
}

// pass takes what has come, lets the machine go on, and does what it wants.
func (l *Lessor) pass(ctx context.Context, message func(*machine)) {
	l.machine.advance(l.deps.Clock.Now())
	for n := 0; message != nil && n < passMessagesMax; n++ {
		message(l.machine)
		select {
		case message = <-l.inbox:
		default:
			message = nil
		}
	}
	if message != nil {
		message(l.machine)
	}
	before := l.machine.primary
	l.machine.step()
	if now := l.machine.primary; now != before {
		l.deps.Log.Info("primary lessor", "primary", now, "claim", l.machine.feed.claim, "member", fmt.Sprintf("%x", l.machine.feed.claimant), "leases", len(l.machine.leases))
	}
	l.execute(ctx)
}

// view reduces the directory's to what the rule of claims needs.
func (l *Lessor) view() view {
	v := l.deps.Directory.View()
	rank := 0
	for _, m := range v.Members {
		if m.Id < l.machine.self && m.Id != l.machine.feed.claimant {
			rank++
		}
	}
	return view{led: v.Led(), leader: v.Leader, term: v.Term, rank: rank}
}

// post hands a message to the loop; false when ctx ended first.
func (l *Lessor) post(ctx context.Context, message func(*machine)) bool {
	select {
	case l.inbox <- message:
		return true
	case <-ctx.Done():
		return false
	}
}

// execute does what the machine wants done.
func (l *Lessor) execute(ctx context.Context) {
	for _, e := range l.machine.take() {
		switch e := e.(type) {
		case answer:
			e.request.done <- e.result
		case ask:
			l.tasks.Go(func() { l.ask(ctx, e.round) })
		case propose:
			l.tasks.Go(func() { l.propose(ctx, e) })
		case probe:
			l.tasks.Go(func() { l.probe(ctx, e.member) })
		}
	}
}

func (l *Lessor) ask(ctx context.Context, r *round) {
	limited, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	read, term, err := l.deps.Index.Wait(limited)
	l.post(ctx, func(m *machine) { m.onIndex(r, read, term, err) })
}

func (l *Lessor) propose(ctx context.Context, p propose) {
	body, err := proto.Marshal(p.body)
	if err != nil {
		panic(fmt.Sprintf("lessor: encode %v: %v", p.kind, err)) // nothing in it can fail
	}
	limited, cancel := context.WithTimeout(ctx, proposeMax)
	defer cancel()
	outcome, err := l.deps.Session.Propose(limited, p.kind, body)
	if err != nil {
		l.deps.Log.Debug("proposal", "kind", p.kind.String(), "err", err)
	}
	l.post(ctx, func(m *machine) { p.done(m, outcome.GetIndex(), err) })
}

func (l *Lessor) probe(ctx context.Context, member uint64) {
	limited, cancel := context.WithTimeout(ctx, probeMax)
	defer cancel()
	var status *leasepb.Status
	client, err := l.deps.Directory.Lessor(member)
	if err == nil {
		status, err = client.GetStatus(limited, &leasepb.GetStatusRequest{})
	}
	if err != nil {
		l.deps.Log.Debug("primary lessor does not answer", "member", fmt.Sprintf("%x", member), "err", err)
	}
	l.post(ctx, func(m *machine) { m.onProbed(member, status) })
}

// follow keeps a feed open until ctx ends.
func (l *Lessor) follow(ctx context.Context) {
	pause := feedPauseMin
	for ctx.Err() == nil {
		err := l.followOnce(ctx, func() { pause = feedPauseMin })
		if !l.post(ctx, (*machine).onFeedLost) {
			return
		}
		l.deps.Log.Debug("feed of leases ended", "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, feedPauseMax)
	}
}

func (l *Lessor) followOnce(ctx context.Context, heard func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	self, stream, err := l.deps.OpenFeed(ctx)
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		changes, err := stream.Recv()
		if err != nil {
			return err
		}
		heard()
		ok := l.post(ctx, func(m *machine) {
			if first {
				m.onFeedOpen(self)
			}
			m.onFeed(changes)
		})
		if !ok {
			return ctx.Err()
		}
	}
}

// Pending is the answer that will come to a request.
type Pending struct {
	l    *Lessor
	done chan Result
}

// Ask hands in a request, whose answer is waited for apart; the answers of one
// caller's requests of one kind come in the order in which they were asked.
// ctx is that of whoever waits: a request whose ctx has ended may stay
// unanswered.
func (l *Lessor) Ask(ctx context.Context, kind Kind, ids []int64) (Pending, error) {
	r := &Request{Kind: kind, IDs: ids, ctx: ctx, done: make(chan Result, 1)}
	select {
	case l.inbox <- func(m *machine) { m.onRequest(r) }:
		return Pending{l, r.done}, nil
	case <-ctx.Done():
		return Pending{}, ctx.Err()
	case <-l.stopped:
		return Pending{}, errs.ErrStopped
	}
}

// Wait returns the answer, or an error if ctx ended or the lessor stopped.
func (p Pending) Wait(ctx context.Context) (Result, error) {
	select {
	case res := <-p.done:
		return res, res.Err
	case <-ctx.Done():
		return Result{}, ctx.Err()
	case <-p.l.stopped:
		select {
		case res := <-p.done:
			return res, res.Err
		default:
			return Result{}, errs.ErrStopped
		}
	}
}

// Status is what the lessor says about itself. It asks the loop, so that one
// that is stuck is seen to be silent.
func (l *Lessor) Status(ctx context.Context) (*leasepb.Status, error) {
	out := make(chan *leasepb.Status, 1)
	select {
	case l.inbox <- func(m *machine) { out <- m.status() }:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.stopped:
		return nil, errs.ErrStopped
	}
	select {
	case s := <-out:
		return s, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.stopped:
		return nil, errs.ErrStopped
	}
}

package consensus

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

const (
	// askTimeout is how long a leader may take to answer before it is asked
	// again: a question that raft lost is never answered.
	askTimeout = 500 * time.Millisecond
	// askPause is between a refusal and the next question, unless the directory
	// changes first.
	askPause = 10 * time.Millisecond
)

// ReadIndexer answers "up to where must a store be before a read that arrives
// now is linearizable?" by asking the leader. One question is in flight at a
// time, and its answer serves every read that arrived before it was asked; reads
// that arrive meanwhile share the next question. A question is asked again,
// afresh, when the leader changes or does not answer within askTimeout; the
// reads that arrived meanwhile then join it.
type ReadIndexer struct {
	directory *cluster.Directory
	log       *slog.Logger
	wake      chan struct{}

	mu struct {
		sync.Mutex
		next    *round // of those who wait for the next question
		stopped bool
	}
}

// round is one question and who waits for its answer.
type round struct {
	waiters int // guarded by the ReadIndexer; those that have not given up
	done    chan struct{}
	read    logid.ID
	term    logid.Term
	err     error
}

// NewReadIndexer returns a ReadIndexer that asks nothing before Run. A nil log
// discards.
func NewReadIndexer(d *cluster.Directory, log *slog.Logger) *ReadIndexer {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &ReadIndexer{directory: d, log: log, wake: make(chan struct{}, 1)}
}

// Wait returns a position that no write acknowledged before the call exceeds,
// and the leader's term. It waits through leader changes until ctx ends (ctx's
// error) or Run has ended (errs.ErrStopped). It may be called before Run.
func (r *ReadIndexer) Wait(ctx context.Context) (logid.ID, logid.Term, error) {
	w, err := r.join()
	if err != nil {
		return logid.ID{}, 0, err
	}
	select {
	case <-w.done:
		return w.read, w.term, w.err
	case <-ctx.Done():
		r.mu.Lock()
		w.waiters--
		r.mu.Unlock()
		return logid.ID{}, 0, ctx.Err()
	}
}

// join adds a waiter to the next round.
func (r *ReadIndexer) join() (*round, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.stopped {
		return nil, errs.ErrStopped
	}
	if r.mu.next == nil {
		r.mu.next = &round{done: make(chan struct{})}
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	r.mu.next.waiters++
	return r.mu.next, nil
}

// Run asks until ctx ends, and returns ctx's error. It is called once.
func (r *ReadIndexer) Run(ctx context.Context) error {
	defer r.stop()
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		// Let those who are about to read join, as in a session's sender.
		runtime.Gosched()
		r.answer(ctx)
	}
}

// answer asks until the rounds that wait are answered, abandoned by all their
// waiters, or ctx ends.
func (r *ReadIndexer) answer(ctx context.Context) {
	var rounds []*round
	for ctx.Err() == nil {
		if rounds = r.gather(rounds); len(rounds) == 0 {
			return
		}
		changed := r.directory.Changed()
		view := r.directory.View()
		if !view.Led() {
			pause(ctx, changed, askTimeout) // waiters may all be gone by then
			continue
		}
		res, err := r.ask(ctx, view, changed)
		if err != nil {
			r.log.Debug("read index", "member", view.Leader, "term", uint64(view.Term), "err", err)
			pause(ctx, changed, askPause)
			continue
		}
		for _, w := range rounds {
			w.read, w.term = logid.FromProto(res.Read), logid.Term(res.Term)
			close(w.done)
		}
		return
	}
	finish(rounds, errs.ErrStopped)
}

// gather drops rounds that nobody waits for and adds the next one.
func (r *ReadIndexer) gather(rounds []*round) []*round {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := rounds[:0]
	for _, w := range rounds {
		if w.waiters > 0 {
			kept = append(kept, w)
		}
	}
	if w := r.mu.next; w != nil && w.waiters > 0 {
		kept = append(kept, w)
	}
	r.mu.next = nil
	return kept
}

// ask asks the leader of view once; it gives up when another one leads.
func (r *ReadIndexer) ask(ctx context.Context, view cluster.View, changed <-chan struct{}) (*consensuspb.ReadIndexResponse, error) {
	client, err := r.directory.Consensus(view.Leader)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, context.DeadlineExceeded)
	defer cancel()
	type answer struct {
		res *consensuspb.ReadIndexResponse
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		res, err := client.ReadIndex(ctx, &consensuspb.ReadIndexRequest{})
		answers <- answer{res, err}
	}()
	for {
		select {
		case a := <-answers:
			return a.res, a.err
		case <-changed:
			changed = r.directory.Changed()
			if v := r.directory.View(); v.Leader != view.Leader || v.Term != view.Term {
				cancel()
				a := <-answers // a call ends with its context
				return a.res, a.err
			}
		}
	}
}

func (r *ReadIndexer) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.stopped = true
	if r.mu.next != nil {
		finish([]*round{r.mu.next}, errs.ErrStopped)
		r.mu.next = nil
	}
}

func finish(rounds []*round, err error) {
	for _, w := range rounds {
		w.err = err
		close(w.done)
	}
}

// pause returns after d, or when woken.
func pause(ctx context.Context, woken <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-woken:
	case <-ctx.Done():
	}
}

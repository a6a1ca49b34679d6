package lease

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quartet-kv/quartet/proto/leasepb"
	"github.com/quartet-kv/quartet/services/errs"
)

// Limits of the one stream to the primary lessor.
const (
	batchRenewalsMax    = 4096
	inflightBatchesMax  = 4
	queuedRenewalsMax   = 65536
	stalledBatchMax     = 2 * time.Second
	stalledBatchChecked = 500 * time.Millisecond
)

// Renewer carries the keep-alives of every client stream over one stream to the
// primary lessor.
type Renewer struct {
	directory Directory
	log       *slog.Logger
	// patience bounds how long a keep-alive waits for a primary.
	patience time.Duration
	queue    chan *renewal
	stopped  chan struct{}
	// primary is the member whose lessor answered last.
	primary atomic.Uint64
	batches atomic.Int64
}

// Batches is how many messages of keep-alives were sent.
func (r *Renewer) Batches() int64 { return r.batches.Load() }

// renewal is one keep-alive. The fields after done are set before it closes.
type renewal struct {
	id    int64
	until time.Time
	done  chan struct{}

	ttl      int64
	revision int64
	term     uint64
	err      error
}

func (r *renewal) fail(err error) {
	r.err = err
	close(r.done)
}

// NewRenewer returns a Renewer that asks nobody before Run.
func NewRenewer(d Directory, patience time.Duration, log *slog.Logger) *Renewer {
	return &Renewer{directory: d, log: log, patience: patience, queue: make(chan *renewal, queuedRenewalsMax), stopped: make(chan struct{})}
}

// renew queues a keep-alive. It blocks while the queue is full.
func (r *Renewer) renew(ctx context.Context, id int64) (*renewal, error) {
	n := &renewal{id: id, until: time.Now().Add(r.patience), done: make(chan struct{})}
	select {
	case r.queue <- n:
		return n, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-r.stopped:
		return nil, errs.ErrStopped
	}
}

// Run renews until ctx ends, and returns ctx's error.
func (r *Renewer) Run(ctx context.Context) error {
	u := &upstream{Renewer: r}
	defer func() {
		close(r.stopped)
		u.failAll(errs.ErrStopped)
	}()
	for {
		if len(u.waiting) == 0 {
			select {
			case n := <-r.queue:
				u.waiting = append(u.waiting, n)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := u.pass(ctx); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			r.log.Debug("keep-alives refused", "err", err)
			u.failAll(err)
		}
	}
}

// upstream is Run's state: keep-alives that are not sent, and those that are
// not answered, oldest first.
type upstream struct {
	*Renewer
	waiting  []*renewal
	inflight []batch
}

type batch struct {
	renewals []*renewal
	sent     time.Time
}

// pass tries each lessor once, and stays with the one that answers until it
// stops to. An error means that nobody can be reached.
func (u *upstream) pass(ctx context.Context) error {
	round := round{}
	for _, member := range u.candidates() {
		answered, err := u.serve(ctx, member)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if answered {
			u.log.Debug("keep-alive stream ended", "member", member, "err", err)
			return nil
		}
		if !round.next(err) {
			return err
		}
	}
	if err := round.end(ctx); err != nil {
		return err
	}
	u.expire(time.Now())
	return nil
}

// serve carries keep-alives to one lessor until its stream ends. Those that it
// leaves unanswered wait again.
func (u *upstream) serve(ctx context.Context, member uint64) (answered bool, err error) {
	client, err := u.directory.Lessor(member)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer u.takeBack()
	stream, err := client.KeepAlive(ctx)
	if err != nil {
		return false, err
	}
	results := make(chan *leasepb.KeepAliveResults)
	ended := make(chan error, 1)
	go func() { ended <- receive(ctx, stream, results) }()
	stall := time.NewTicker(stalledBatchChecked)
	defer stall.Stop()
	for {
		if err := u.send(stream); err != nil {
			return answered, <-ended // Recv knows why
		}
		select {
		case n := <-u.queue:
			u.waiting = append(u.waiting, n)
			u.gather()
		case res := <-results:
			if err := u.onResults(res); err != nil {
				return answered, err
			}
			answered = true
			u.primary.Store(member)
		case err := <-ended:
			return answered, err
		case now := <-stall.C:
			if u.stalled(now) {
				return answered, context.DeadlineExceeded
			}
		}
	}
}

// receive hands results over until the stream ends.
func receive(ctx context.Context, stream leasepb.Lessor_KeepAliveClient, results chan<- *leasepb.KeepAliveResults) error {
	for {
		res, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case results <- res:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// gather takes what else is queued, without waiting.
func (u *upstream) gather() {
	for len(u.waiting) < queuedRenewalsMax {
		select {
		case n := <-u.queue:
			u.waiting = append(u.waiting, n)
		default:
			return
		}
	}
}

// send sends what waits, as far as batches may be under way.
func (u *upstream) send(stream leasepb.Lessor_KeepAliveClient) error {
	for len(u.waiting) > 0 && len(u.inflight) < inflightBatchesMax {
		n := min(len(u.waiting), batchRenewalsMax)
		b := batch{renewals: u.waiting[:n:n], sent: time.Now()}
		u.waiting = u.waiting[n:]
		ids := make([]int64, n)
		for i, r := range b.renewals {
			ids[i] = r.id
		}
		u.inflight = append(u.inflight, b)
		u.batches.Add(1)
		if err := stream.Send(&leasepb.KeepAliveBatch{Ids: ids}); err != nil {
			return err
		}
	}
	return nil
}

func (u *upstream) onResults(res *leasepb.KeepAliveResults) error {
	if len(u.inflight) == 0 || len(res.Ttls) != len(u.inflight[0].renewals) {
		return status.Errorf(codes.Unavailable, "lessor answered %d keep-alives that nobody asked", len(res.Ttls))
	}
	for i, r := range u.inflight[0].renewals {
		r.ttl, r.revision, r.term = res.Ttls[i], res.Revision, res.RaftTerm
		close(r.done)
	}
	u.inflight = u.inflight[1:]
	return nil
}

func (u *upstream) stalled(now time.Time) bool {
	return len(u.inflight) > 0 && now.Sub(u.inflight[0].sent) > stalledBatchMax
}

// takeBack puts unanswered keep-alives before those that wait.
func (u *upstream) takeBack() {
	if len(u.inflight) == 0 {
		return
	}
	var all []*renewal
	for _, b := range u.inflight {
		all = append(all, b.renewals...)
	}
	u.waiting, u.inflight = append(all, u.waiting...), nil
}

// expire answers those that have waited too long.
func (u *upstream) expire(now time.Time) {
	kept := u.waiting[:0]
	for _, r := range u.waiting {
		if now.After(r.until) {
			r.fail(context.DeadlineExceeded)
		} else {
			kept = append(kept, r)
		}
	}
	u.waiting = kept
}

// failAll answers everything that waits or is queued.
func (u *upstream) failAll(err error) {
	if errors.Is(err, context.Canceled) {
		err = errs.ErrStopped
	}
	u.gather()
	for _, r := range u.waiting {
		r.fail(err)
	}
	u.waiting = nil
}

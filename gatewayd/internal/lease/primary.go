package lease

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/proto/leasepb"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/errs"
)

// Directory says who the members are and reaches their lessors.
type Directory interface {
	View() cluster.View
	Lessor(member uint64) (leasepb.LessorClient, error)
}

const (
	// passPause separates two rounds of asking every lessor: somebody is about
	// to claim.
	passPause = 50 * time.Millisecond
	// askMax is how long one lessor may take before the next one is asked.
	askMax = 2 * time.Second
)

// candidates are the members whose lessors may be primary, likeliest first.
func (r *Renewer) candidates() []uint64 {
	view := r.directory.View()
	last := r.primary.Load()
	var ids []uint64
	for _, id := range [2]uint64{last, view.Leader} {
		if _, ok := view.Member(id); ok && (len(ids) == 0 || ids[0] != id) {
			ids = append(ids, id)
		}
	}
	for _, m := range view.Members {
		if m.Id != last && m.Id != view.Leader {
			ids = append(ids, m.Id)
		}
	}
	return ids
}

// atPrimary makes a unary call to the primary lessor.
func (r *Renewer) atPrimary(ctx context.Context, call func(context.Context, leasepb.LessorClient) error) error {
	for {
		round := round{}
		for _, member := range r.candidates() {
			err := r.askOne(ctx, member, call)
			if err == nil {
				r.primary.Store(member)
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !round.next(err) {
				return err
			}
		}
		if err := round.end(ctx); err != nil {
			return err
		}
	}
}

func (r *Renewer) askOne(ctx context.Context, member uint64, call func(context.Context, leasepb.LessorClient) error) error {
	client, err := r.directory.Lessor(member)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	return call(ctx, client)
}

// TimeToLive is what remains of a lease, -1 when the primary does not know it.
func (r *Renewer) TimeToLive(ctx context.Context, id int64) (time.Duration, error) {
	var resp *leasepb.TimeToLiveResponse
	err := r.atPrimary(ctx, func(ctx context.Context, c leasepb.LessorClient) (err error) {
		resp, err = c.TimeToLive(ctx, &leasepb.TimeToLiveRequest{Ids: []int64{id}})
		return err
	})
	if err != nil {
		return 0, err
	}
	if len(resp.RemainingMs) != 1 {
		return 0, status.Errorf(codes.Unknown, "lessor answered for %d leases, want 1", len(resp.RemainingMs))
	}
	if resp.RemainingMs[0] < 0 {
		return -1, nil
	}
	return time.Duration(resp.RemainingMs[0]) * time.Millisecond, nil
}

// round is one pass over the lessors.
type round struct{ alive bool }

// next takes a lessor's refusal; false when asking another one is no use.
func (r *round) next(err error) bool {
	switch {
	case errors.Is(err, errs.ErrNotPrimary):
		r.alive = true
		return true
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded:
		r.alive = true // it may be paused
		return true
	case errors.Is(err, errs.ErrNotReady):
		return true
	}
	c := status.Code(err)
	return c == codes.Unavailable || c == codes.Canceled || c == codes.Unimplemented
}

// end pauses before the next pass, or says that there is nobody to wait for.
func (r *round) end(ctx context.Context) error {
	if !r.alive {
		return errNoLessor
	}
	select {
	case <-time.After(passPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errNoLessor sends the client to another endpoint.
var errNoLessor = rpctypes.ErrGRPCUnhealthy

func isNotFound(err error) bool { return errors.Is(err, rpctypes.ErrGRPCLeaseNotFound) }

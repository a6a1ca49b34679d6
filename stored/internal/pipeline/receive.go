package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

// Pauses of the receiver.
const (
	// retryMin and retryMax bound the pause between streams that fail.
	retryMin = 20 * time.Millisecond
	retryMax = time.Second
	// reportEvery bounds how often progress is reported.
	reportEvery = 50 * time.Millisecond
	// ownEvery is how often a store that follows another member tries its own
	// again.
	ownEvery = 5 * time.Second
)

// receiver follows one consensusd after another.
type receiver struct {
	*Pipeline
	after   logid.ID
	cluster uint64
}

// receive follows the own member's consensusd and, while that does not answer,
// the others, in turn.
func (p *Pipeline) receive(ctx context.Context) error {
	view := p.State.View()
	r := &receiver{Pipeline: p, after: view.Log, cluster: view.ClusterID}
	pause := retryMin
	for at := 0; ctx.Err() == nil; at = (at + 1) % len(p.Consensus) {
		got, err := r.follow(ctx, at)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errs.ErrLogMismatch) {
			return fmt.Errorf("position %s is not in the log's history (to refill the store, start it with an empty data directory): %w", r.after, err)
		}
		if got {
			pause, at = retryMin, -1 // try the own member first
		}
		p.Log.Info("deliver stream ended", "addr", p.Consensus[max(at, 0)], "index", uint64(r.after.Index), "err", err)
		if sleep(ctx, pause) != nil {
			return nil
		}
		pause = min(2*pause, retryMax)
	}
	return nil
}

// follow receives from one consensusd until its stream ends; got tells whether
// anything came.
func (r *receiver) follow(ctx context.Context, at int) (got bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if at > 0 {
		// Another's log is as good, but the own member counts on its store.
		limit := time.AfterFunc(ownEvery, cancel)
		defer limit.Stop()
	}
	conn, err := r.Dialer.Dial(r.Consensus[at], dial.Bulk)
	if err != nil {
		return false, err
	}
	stream, err := consensuspb.NewConsensusClient(conn).Deliver(ctx)
	if err != nil {
		return false, err
	}
	err = stream.Send(&consensuspb.DeliverRequest{Start: &consensuspb.DeliverStart{After: r.after.Proto(), Store: r.Store, ClusterId: r.cluster}})
	if err != nil {
		return false, streamError(stream, err)
	}
	reported := make(chan struct{})
	go func() { defer close(reported); r.report(ctx, stream) }()
	defer func() { cancel(); <-reported }()
	for {
		response, err := stream.Recv()
		if err != nil {
			return got, err
		}
		if at == 0 {
			r.member.Store(response.MemberId)
		}
		got, r.cluster = true, response.ClusterId
		if n := len(response.Entries); n > 0 {
			last := response.Entries[n-1]
			r.after = logid.ID{Epoch: logid.Epoch(response.Epoch), Index: logid.Index(last.Index), Term: logid.Term(last.Term)}
		}
		select {
		case r.received <- response:
		case <-ctx.Done():
			return got, ctx.Err()
		}
	}
}

// streamError is why a stream ended, when Send only says that it did.
func streamError(stream consensuspb.Consensus_DeliverClient, sent error) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	return sent
}

// report tells consensusd how far the store is, for as long as the stream lives.
func (r *receiver) report(ctx context.Context, stream consensuspb.Consensus_DeliverClient) {
	for {
		err := stream.Send(&consensuspb.DeliverRequest{Progress: &consensuspb.DeliverProgress{
			Applied: r.State.View().Log.Proto(), Synced: r.synced.Load().Log.Proto(),
		}})
		if err != nil || sleep(ctx, reportEvery) != nil {
			return
		}
		select {
		case <-r.progress:
		case <-ctx.Done():
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

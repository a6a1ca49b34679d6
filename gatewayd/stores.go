package gatewayd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/gatewayd/internal/watch"
	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/bus"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

// eachStore calls open with the store of the first member, if there is one,
// then with the others', until one does not fail.
func eachStore[T any](ctx context.Context, f *face, first uint64, open func(storepb.StoreClient) (T, error)) (T, error) {
	err := rpctypes.ErrGRPCUnhealthy
	var order []uint64
	for _, m := range f.directory.View().Members {
		if order = append(order, m.Id); m.Id == first {
			order[0], order[len(order)-1] = first, order[0]
		}
	}
	var got T
	for _, member := range order {
		var client storepb.StoreClient
		if client, err = f.directory.StoreBulk(member); err != nil {
			continue
		}
		if got, err = open(client); err == nil || ctx.Err() != nil {
			return got, err
		}
	}
	return got, err
}

// followFirstMax is how long a store may take to say its first word: an idle
// one speaks up several times a second.
const followFirstMax = 2 * time.Second

// follow implements bus.Pull. Of several refusals, "behind" is the one that
// the reader must know.
func (f *face) follow(ctx context.Context, after logid.ID) (bus.Feed, error) {
	behind := false
	got, err := eachStore(ctx, f, f.member, func(c storepb.StoreClient) (bus.Feed, error) {
		feed, err := followOne(ctx, c, after)
		behind = behind || errors.Is(err, errs.ErrFollowBehind)
		return feed, err
	})
	if err != nil && behind {
		err = errs.ErrFollowBehind
	}
	return got, err
}

// followOne opens a feed at one store and waits for its first batch, since only
// then it is known to have one.
func followOne(ctx context.Context, c storepb.StoreClient, after logid.ID) (bus.Feed, error) {
	ctx, cancel := context.WithCancel(ctx)
	patience := time.AfterFunc(followFirstMax, cancel)
	stream, err := c.Follow(ctx, &storepb.FollowRequest{After: after.Proto()})
	if err == nil {
		var first *buspb.Batch
		if first, err = stream.Recv(); err == nil && patience.Stop() {
			return &feed{stream, cancel, first}, nil
		}
	}
	cancel()
	if err == nil {
		err = context.DeadlineExceeded
	}
	return nil, err
}

// feed is a stream of which the first message was received already.
type feed struct {
	stream storepb.Store_FollowClient
	cancel context.CancelFunc
	first  *buspb.Batch
}

func (f *feed) Recv() (*buspb.Batch, error) {
	if b := f.first; b != nil {
		f.first = nil
		return b, nil
	}
	b, err := f.stream.Recv()
	if err != nil {
		f.cancel()
	}
	return b, err
}

// history opens the events of a range at a store.
func (f *face) history(ctx context.Context, r *storepb.HistoryRequest) (watch.HistoryStream, error) {
	return eachStore(ctx, f, f.member, func(c storepb.StoreClient) (watch.HistoryStream, error) {
		return c.History(ctx, r)
	})
}

// compactedRetry is the pause before stores are asked again.
const compactedRetry = 100 * time.Millisecond

// waitCompacted asks the store whose outcomes the session reads, which has
// applied the compaction, and others when that one goes away meanwhile.
func (f *face) waitCompacted(ctx context.Context, revision int64) error {
	for {
		_, err := eachStore(ctx, f, f.session.Attached(), func(c storepb.StoreClient) (*storepb.WaitCompactedResponse, error) {
			return c.WaitCompacted(ctx, &storepb.WaitCompactedRequest{CompactRevision: revision})
		})
		if err == nil {
			return nil
		}
		select {
		case <-time.After(compactedRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

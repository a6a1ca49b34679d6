package publish

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/bus"
	"github.com/quartet-kv/quartet/services/clock"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

// HeartbeatEvery is how often an idle store says that it is.
const HeartbeatEvery = 100 * time.Millisecond

// Publisher joins a Ring to the bus and to followers.
type Publisher struct {
	Ring    *Ring
	Bus     bus.Publisher // nil is none
	Clock   clock.Clock
	Log     *slog.Logger
	Batches prometheus.Counter // published
	Failed  prometheus.Counter // and those that went nowhere
}

// Run publishes to the bus while the store is told to, until ctx ends. What was
// applied while another store was to publish is not made up for: receivers see
// the gap and pull.
func (p *Publisher) Run(ctx context.Context) error {
	if p.Bus == nil {
		<-ctx.Done()
		return nil
	}
	tick := p.Clock.Ticker(HeartbeatEvery)
	defer tick.Stop()
	at := logid.FromProto(p.Ring.after(0).end.At).Index
	failing, idle := false, true
	for {
		v := p.Ring.after(at)
		batches := v.batches
		if v.behind || !v.publish {
			batches, at = nil, logid.Index(v.end.At.GetIndex())
		}
		for _, b := range batches {
			failing = p.publish(ctx, b, failing)
			at, idle = logid.Index(b.At.Index), false
		}
		if len(batches) > 0 {
			continue
		}
		select {
		case <-v.added:
		case <-tick.C():
			if v.publish && idle {
				failing = p.publish(ctx, v.end, failing)
			}
			idle = true
		case <-ctx.Done():
			return nil
		}
	}
}

// publish logs the first failure of an episode only.
func (p *Publisher) publish(ctx context.Context, b *buspb.Batch, failing bool) bool {
	err := p.Bus.Publish(ctx, b)
	if err == nil {
		p.Batches.Inc()
		return false
	}
	p.Failed.Inc()
	if !failing && ctx.Err() == nil {
		p.Log.Warn("publish; receivers will pull", "index", b.At.GetIndex(), "err", err)
	}
	return true
}

// Follow serves one Follow call: the state as of now for a caller without a
// position, then every batch after the caller's position.
func (p *Publisher) Follow(req *storepb.FollowRequest, g grpc.ServerStreamingServer[buspb.Batch]) error {
	ctx := g.Context()
	after := logid.FromProto(req.After)
	v := p.Ring.after(after.Index)
	if after.IsZero() {
		after = logid.FromProto(v.end.At)
		if err := g.Send(v.end); err != nil {
			return err
		}
	}
	tick := p.Clock.Ticker(HeartbeatEvery)
	defer tick.Stop()
	at, idle := after.Index, true
	for {
		v = p.Ring.after(at)
		if v.behind || !after.IsZero() && v.end.At.GetEpoch() != uint64(after.Epoch) {
			return errs.ErrFollowBehind
		}
		for _, b := range v.batches {
			if err := g.Send(b); err != nil {
				return err
			}
			at, idle = logid.Index(b.At.Index), false
		}
		if len(v.batches) > 0 {
			continue
		}
		select {
		case <-v.added:
		case <-tick.C():
			if idle && at == logid.Index(v.end.At.GetIndex()) {
				if err := g.Send(v.end); err != nil {
					return err
				}
			}
			idle = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

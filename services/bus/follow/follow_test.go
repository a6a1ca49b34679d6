package follow_test

import (
	"context"
	"testing"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/bus"
	"github.com/quartet-kv/quartet/services/bus/bustest"
	"github.com/quartet-kv/quartet/services/bus/follow"
	"github.com/quartet-kv/quartet/services/bus/memory"
	"github.com/quartet-kv/quartet/services/inproc"
	"github.com/quartet-kv/quartet/services/logid"
)

// followed is a store of which nothing but Follow works.
type followed struct {
	storepb.UnimplementedStoreServer
	applied *memory.Bus
}

func (f *followed) Follow(_ *storepb.FollowRequest, stream storepb.Store_FollowServer) error {
	sub, err := f.applied.Subscribe(stream.Context())
	if err != nil {
		return err
	}
	defer sub.Close()
	for {
		b, err := sub.Recv(stream.Context())
		if err != nil {
			return err
		}
		if err := stream.Send(b); err != nil {
			return err
		}
	}
}

func TestFollowIsABus(t *testing.T) {
	bustest.Run(t, func(t *testing.T) (bus.Publisher, bus.Subscriber) {
		applied := memory.New(bus.QueueLimits{})
		server := inproc.NewServer()
		storepb.RegisterStoreServer(server, &followed{applied: applied})
		t.Cleanup(server.Stop)
		client := storepb.NewStoreClient(server.Conn())
		pull := func(ctx context.Context, after logid.ID) (bus.Feed, error) {
			return client.Follow(ctx, &storepb.FollowRequest{After: after.Proto()})
		}
		return applied, follow.New(pull, bustest.Limits)
	})
}

var _ bus.Feed = storepb.Store_FollowClient(nil)

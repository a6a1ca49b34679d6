package members

import (
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/cluster"
)

// Directory says who the members are and reaches their stores.
type Directory interface {
	View() cluster.View
	Store(member uint64) (storepb.StoreClient, error)
}

// askMax is how long one store may take before the next one is asked.
const askMax = time.Second

// StoreStatus is the status of the preferred member's store, or of the first
// other one that answers.
func StoreStatus(ctx context.Context, d Directory, prefer uint64) (*storepb.Status, error) {
	if s, err := statusOf(ctx, d, prefer); err == nil {
		return s, nil
	}
	for _, m := range d.View().Members {
		if m.Id == prefer {
			continue
		}
		if s, err := statusOf(ctx, d, m.Id); err == nil {
			return s, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, rpctypes.ErrGRPCUnhealthy
}

func statusOf(ctx context.Context, d Directory, member uint64) (*storepb.Status, error) {
	client, err := d.Store(member)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	return client.GetStatus(ctx, &storepb.GetStatusRequest{})
}

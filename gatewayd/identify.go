package gatewayd

import (
	"context"
	"time"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/gatewayd/internal/members"
	"github.com/quartet-kv/quartet/proto/storepb"
)

// identifyRetry is the pause before the member is looked for again.
const identifyRetry = 200 * time.Millisecond

// identify waits until a member is seen that the gateway can speak for.
func (g *Gatewayd) identify(ctx context.Context) (edge.Identity, error) {
	said := ""
	for {
		changed := g.directory.Changed()
		view := g.directory.View()
		if view.ClusterID != 0 && len(view.Members) > 0 {
			member, err := members.Choose(view, g.otherGateways(ctx, view.Leader), g.name, g.config.Member)
			if err == nil {
				return edge.Identity{ClusterID: view.ClusterID, MemberID: member}, nil
			}
			if said != err.Error() {
				said = err.Error()
				g.log.Warn("no member to speak for yet", "err", err)
			}
		}
		select {
		case <-changed:
		case <-time.After(identifyRetry):
		case <-ctx.Done():
			return edge.Identity{}, ctx.Err()
		}
	}
}

// otherGateways are those that a store knows; none when the choice does not
// depend on them, or no store answers.
func (g *Gatewayd) otherGateways(ctx context.Context, leader uint64) []*storepb.Gateway {
	if g.config.Member != "" {
		return nil
	}
	status, err := members.StoreStatus(ctx, g.directory, leader)
	if err != nil {
		return nil
	}
	return status.Gateways
}

package allinone

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quartet-kv/quartet/consensusd"
	"github.com/quartet-kv/quartet/gatewayd"
	"github.com/quartet-kv/quartet/leased"
	"github.com/quartet-kv/quartet/services/bus"
	"github.com/quartet-kv/quartet/services/bus/memory"
	"github.com/quartet-kv/quartet/services/daemon"
	"github.com/quartet-kv/quartet/services/inproc"
	"github.com/quartet-kv/quartet/stored"
)

// UpConfig of a whole cluster in this process.
type UpConfig struct {
	Members int
	// ClientAddrs has one address for each gateway.
	ClientAddrs []string
	DataDir     string
	Engine      string
	Log         *slog.Logger
}

// NewUp opens the cluster's data and returns what runs it until its context
// ends.
func NewUp(c UpConfig) (func(context.Context) error, error) {
	u := &up{UpConfig: c, fabric: inproc.NewFabric(), bus: memory.New(bus.QueueLimits{})}
	var seeds []string
	for i := 1; i <= c.Members; i++ {
		seeds = append(seeds, address("consensusd", i))
		u.members = append(u.members, consensusd.Member{
			Name: fmt.Sprintf("m%d", i), PeerURLs: []string{"inproc://" + address("consensusd", i)},
			Consensus: address("consensusd", i), Store: address("stored", i), Lease: address("leased", i),
		})
	}
	var order, state, time, face daemon.Stage
	for i := 1; i <= c.Members; i++ {
		if err := u.member(i, &order, &state, &time); err != nil {
			return nil, err
		}
	}
	for i, addr := range c.ClientAddrs {
		name := fmt.Sprintf("gatewayd-%d", i+1)
		cfg := gatewayd.DefaultConfig()
		cfg.Name, cfg.Member, cfg.ClientListen, cfg.Consensus = name, u.members[i%c.Members].Name, []string{addr}, seeds
		g, err := gatewayd.New(cfg, gatewayd.Deps{Log: c.Log.With("daemon", name), Metrics: prometheus.NewRegistry(), Dialer: u.fabric, Bus: u.bus})
		if err != nil {
			return nil, err
		}
		face = append(face, g.Run)
	}
	return func(ctx context.Context) error { return daemon.RunStages(ctx, order, state, time, face) }, nil
}

// up is a cluster while it is put together.
type up struct {
	UpConfig
	fabric  *inproc.Fabric
	bus     *memory.Bus
	members []consensusd.Member
}

func address(kind string, i int) string { return fmt.Sprintf("%s-%d", kind, i) }

// member adds one member's daemons to the stages.
func (u *up) member(i int, order, state, time *daemon.Stage) error {
	dir := filepath.Join(u.DataDir, fmt.Sprintf("m%d", i))
	log := func(kind string) *slog.Logger { return u.Log.With("daemon", address(kind, i)) }

	cc := consensusd.DefaultConfig()
	cc.Name, cc.DataDir, cc.Members = fmt.Sprintf("m%d", i), filepath.Join(dir, "consensus"), u.members
	c, err := consensusd.New(cc, consensusd.Deps{Log: log("consensusd"), Metrics: prometheus.NewRegistry(), Dialer: u.fabric})
	if err != nil {
		return err
	}
	sc := stored.DefaultConfig()
	sc.Name, sc.DataDir, sc.Engine = address("stored", i), filepath.Join(dir, "store"), u.Engine
	sc.MemberConsensus = []string{address("consensusd", i)}
	s, err := stored.New(sc, stored.Deps{Log: log("stored"), Metrics: prometheus.NewRegistry(), Dialer: u.fabric, Bus: u.bus})
	if err != nil {
		return err
	}
	lc := leased.DefaultConfig()
	lc.Consensus, lc.Store = address("consensusd", i), address("stored", i)
	l, err := leased.New(lc, leased.Deps{Log: log("leased"), Metrics: prometheus.NewRegistry(), Dialer: u.fabric})
	if err != nil {
		return err
	}
	*order = append(*order, serveOn(u.fabric, address("consensusd", i), c))
	*state = append(*state, serveOn(u.fabric, address("stored", i), s))
	*time = append(*time, serveOn(u.fabric, address("leased", i), l))
	return nil
}

// serveOn registers services at an address of the fabric and returns what runs
// them; the address stops answering when they have stopped.
func serveOn(f *inproc.Fabric, addr string, services ...daemon.Service) func(context.Context) error {
	server := f.Server(addr)
	var stage daemon.Stage
	for _, s := range services {
		s.Register(server)
		stage = append(stage, s.Run)
	}
	return func(ctx context.Context) error {
		defer server.Stop()
		return daemon.RunStages(ctx, stage)
	}
}

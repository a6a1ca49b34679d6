package allinone

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quartet-kv/quartet/consensusd"
	"github.com/quartet-kv/quartet/deploy/etcdflags"
	"github.com/quartet-kv/quartet/gatewayd"
	"github.com/quartet-kv/quartet/leased"
	"github.com/quartet-kv/quartet/services/daemon"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/inproc"
	"github.com/quartet-kv/quartet/stored"
)

// NewMember opens one member's data and returns what runs its four daemons
// until its context ends.
func NewMember(c etcdflags.Config, engine string, log *slog.Logger) (func(context.Context) error, error) {
	if len(c.AdvertisePeer) == 0 || len(c.ListenPeer) == 0 || len(c.ListenClient) == 0 {
		return nil, fmt.Errorf("--listen-peer-urls, --initial-advertise-peer-urls and --listen-client-urls must not be empty")
	}
	m := &member{Config: c, engine: engine, log: log, registry: daemon.NewRegistry(), fabric: inproc.NewFabric(), network: dial.NewGRPC()}
	m.self = etcdflags.Address(c.AdvertisePeer[0])
	m.dialer = dial.Overlay(m.fabric, m.network)
	peer := m.fabric.Server(m.self)
	daemons, err := m.daemons()
	if err != nil {
		return nil, err
	}
	for _, d := range daemons {
		d.Register(peer)
	}
	gateway, err := m.gateway()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		defer m.network.Close()
		defer peer.Stop()
		stages := []daemon.Stage{m.listeners(daemons)}
		for _, d := range daemons { // order, state, time
			stages = append(stages, daemon.Stage{d.Run})
		}
		return daemon.RunStages(ctx, append(stages, daemon.Stage{gateway.Run})...)
	}, nil
}

// member is one while it is put together.
type member struct {
	etcdflags.Config
	engine   string
	log      *slog.Logger
	registry *prometheus.Registry
	// self is the one address of all daemons of this member.
	self    string
	fabric  *inproc.Fabric
	network *dial.GRPC
	dialer  dial.Dialer
}

// metrics is where one daemon registers: parts that several daemons have would
// else meet under one name.
func (m *member) metrics(kind string) prometheus.Registerer {
	return prometheus.WrapRegistererWith(prometheus.Labels{"daemon": kind}, m.registry)
}

func (m *member) daemons() ([]daemon.Service, error) {
	cc := consensusd.DefaultConfig()
	cc.Name, cc.ClusterToken, cc.DataDir = m.Name, m.Token, filepath.Join(m.DataDir, "consensus")
	cc.HeartbeatInterval, cc.ElectionTimeout = m.Heartbeat, m.Election
	for _, row := range m.Members {
		addr := etcdflags.Address(row.PeerURLs[0])
		cc.Members = append(cc.Members, consensusd.Member{Name: row.Name, PeerURLs: row.PeerURLs, Consensus: addr, Store: addr, Lease: addr})
	}
	c, err := consensusd.New(cc, consensusd.Deps{Log: m.log.With("daemon", "consensusd"), Metrics: m.metrics("consensusd"), Dialer: m.dialer})
	if err != nil {
		return nil, err
	}
	sc := stored.DefaultConfig()
	sc.Name, sc.DataDir, sc.Engine = m.Name, filepath.Join(m.DataDir, "store"), m.engine
	sc.MemberConsensus = []string{m.self}
	s, err := stored.New(sc, stored.Deps{Log: m.log.With("daemon", "stored"), Metrics: m.metrics("stored"), Dialer: m.dialer})
	if err != nil {
		return nil, err
	}
	lc := leased.DefaultConfig()
	lc.Consensus, lc.Store, lc.Grace = m.self, m.self, m.Election
	l, err := leased.New(lc, leased.Deps{Log: m.log.With("daemon", "leased"), Metrics: m.metrics("leased"), Dialer: m.dialer})
	if err != nil {
		return nil, err
	}
	return []daemon.Service{c, s, l}, nil
}

func (m *member) gateway() (*gatewayd.Gatewayd, error) {
	cfg := gatewayd.DefaultConfig()
	cfg.Name, cfg.Member = m.Name, m.Name
	cfg.ClientListen, cfg.AdvertiseClientURLs = m.ListenClient, m.AdvertiseURLs
	cfg.RequestBytesMax, cfg.TxnOpsMax = m.RequestBytes, m.TxnOps
	cfg.ElectionTimeout, cfg.WatchProgressInterval = m.Election, m.Progress
	for _, row := range m.Members {
		addr := etcdflags.Address(row.PeerURLs[0])
		if addr == m.self { // asked first
			cfg.Consensus = append([]string{addr}, cfg.Consensus...)
		} else {
			cfg.Consensus = append(cfg.Consensus, addr)
		}
	}
	return gatewayd.New(cfg, gatewayd.Deps{Log: m.log.With("daemon", "gatewayd"), Metrics: m.metrics("gatewayd"), Dialer: m.dialer})
}

// listeners serve the daemons to the other members, at every peer address.
func (m *member) listeners(daemons []daemon.Service) daemon.Stage {
	var stage daemon.Stage
	for _, addr := range m.ListenPeer {
		stage = append(stage, func(ctx context.Context) error { return servePeers(ctx, addr, m.log, daemons) })
	}
	for _, addr := range m.ListenMetrics {
		stage = append(stage, func(ctx context.Context) error { return daemon.ServeMetrics(ctx, addr, m.registry) })
	}
	return stage
}

// servePeers serves daemons that are run elsewhere.
func servePeers(ctx context.Context, addr string, log *slog.Logger, daemons []daemon.Service) error {
	services := make([]daemon.Service, len(daemons))
	for i, d := range daemons {
		services[i] = registered{d}
	}
	return daemon.Serve(ctx, addr, log, services...)
}

// registered is a Service whose Run is somebody else's.
type registered struct{ daemon.Service }

func (registered) Run(ctx context.Context) error { <-ctx.Done(); return nil }

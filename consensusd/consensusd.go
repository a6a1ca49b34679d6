// Package consensusd is the daemon that owns the order: the raft log, the term
// and the membership. What it delivers is committed, in one order, for ever.
// The promise is services/consensus; this package and those beneath keep it.
//
// # Path
//
//	server.go    Propose, ReadIndex, Deliver, Observe, GetStatus
//	internal/node        the loop around raft: propose, append, commit, read index
//	internal/raftlog     the log on disk
//	internal/transport   messages between members
//	internal/deliver     committed entries to stores
//	internal/membership  ids and the list of members
//
// # Life cycle
//
//	New      opens the log, refuses one of another identity, starts nothing
//	Run      transport ─▶ node ─▶ ... ctx ends ─▶ node hands leadership over and
//	         stops ─▶ transport stops ─▶ the log is closed
//	         a failed write ends Run with its error: the process must stop
package consensusd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/quartet-kv/quartet/consensusd/internal/deliver"
	"github.com/quartet-kv/quartet/consensusd/internal/membership"
	"github.com/quartet-kv/quartet/consensusd/internal/node"
	"github.com/quartet-kv/quartet/consensusd/internal/transport"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/peerpb"
	"github.com/quartet-kv/quartet/services/clock"
	"github.com/quartet-kv/quartet/services/dial"
)

// Deps are what a consensusd runs on.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Dialer reaches the peers, each at its first peer URL's address.
	Dialer dial.Dialer
	// Clock drives heartbeats and elections; nil is the real one.
	Clock clock.Clock
}

// storage is a log that can be closed.
type storage interface {
	node.Storage
	Close() error
}

// Consensusd is one member's.
type Consensusd struct {
	cfg       Config
	log       *slog.Logger
	storage   storage
	hub       *deliver.Hub
	node      *node.Node
	transport *transport.Transport
}

// New opens the log and prepares a member on it. The log stays open until Run
// returns, so a Consensusd that is made is to be run.
func New(cfg Config, deps Deps) (*Consensusd, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	members, id, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	if deps.Clock == nil {
		deps.Clock = clock.Real()
	}
	log := deps.Log.With("member", fmt.Sprintf("%x", id.Member))
	store, err := openLog(cfg, id, log)
	if err != nil {
		return nil, err
	}
	c, err := assemble(cfg, id, members, store, deps, log)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return c, nil
}

func assemble(cfg Config, id membership.Identity, members membership.List, store storage, deps Deps, log *slog.Logger) (*Consensusd, error) {
	start, err := node.ReadStart(store)
	if err != nil {
		return nil, err
	}
	m := newMetrics(deps.Metrics)
	c := &Consensusd{cfg: cfg, log: log, storage: store}
	c.transport = transport.New(id, peerAddresses(members, id.Member), deps.Dialer, log, m.transport)
	c.hub = deliver.NewHub(id, store, start.Applied, func() { c.node.Attached() }, log, m.deliver)
	c.node, err = node.New(node.Config{
		ID: id, Members: members,
		Tick:                cfg.HeartbeatInterval,
		ElectionTicks:       int(cfg.ElectionTimeout / cfg.HeartbeatInterval),
		AppendBytesMax:      appendBytesMax,
		InflightBytesMax:    uint64(cfg.InflightBytesMax),
		InflightMessagesMax: inflightMessagesMax,
		UncommittedBytesMax: uint64(cfg.UncommittedBytesMax),
		LogBytesMax:         uint64(cfg.LogBytesMax),
		LogTailEntries:      uint64(cfg.LogTailEntries),
		LogTailBytes:        uint64(cfg.LogTailBytes),
	}, node.Deps{
		Storage: store, Hub: c.hub, Sender: c.transport,
		Clock: deps.Clock, Log: log, Metrics: m.node,
	})
	if err != nil {
		return nil, err
	}
	c.transport.Bind(c.node)
	return c, nil
}

// peerAddresses is where to dial the others.
func peerAddresses(members membership.List, self uint64) map[uint64]string {
	peers := make(map[uint64]string)
	for _, m := range members {
		if m.Id != self {
			peers[m.Id], _ = membership.PeerAddress(m) // checked by Validate
		}
	}
	return peers
}

// Register adds the services for gateways, stores and lessors, and for peers.
func (c *Consensusd) Register(r grpc.ServiceRegistrar) {
	consensuspb.RegisterConsensusServer(r, &server{c: c})
	peerpb.RegisterPeerServer(r, c.transport.Server())
}

// Run blocks until ctx ends or the log cannot be written. A leader hands over
// first, within one election timeout.
func (c *Consensusd) Run(ctx context.Context) error {
	peersCtx, stopPeers := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPeers()
	var g errgroup.Group
	g.Go(func() error { return c.transport.Run(peersCtx) })
	g.Go(func() error {
		defer stopPeers()
		return c.node.Run(ctx)
	})
	err := g.Wait()
	return errors.Join(err, c.storage.Close())
}

// Package leased is the daemon that owns time: TTLs and expiry. A lease lives at
// least as long as was acknowledged, and the daemon changes the world only by
// proposing. The promise is services/lease; internal/lessor keeps it.
//
// # Path
//
//	server.go          KeepAlive, TimeToLive, List, GetStatus
//	internal/lessor    the loop: feed, claim, renew, expire
//	internal/expiry    the queue of what is due
//
// # Life cycle
//
//	New   builds, starts nothing
//	Run   directory ─▶ session and read indexes ─▶ lessor; when ctx ends they
//	      stop in the reverse order. Nothing is kept on disk: whoever is primary
//	      next gives every lease its time again.
package leased

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/quartet-kv/quartet/leased/internal/lessor"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/leasepb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/clock"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/consensus"
	"github.com/quartet-kv/quartet/services/daemon"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/session"
)

// Deps are what a leased runs on.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Dialer reaches the own member's consensusd and store, and the addresses in
	// the membership.
	Dialer dial.Dialer
	// Clock counts the leases' time; nil is the real one.
	Clock clock.Clock
}

// Leased is the lessor beside one member.
type Leased struct {
	cfg       Config
	deps      Deps
	directory *cluster.Directory
	session   *session.Session
	index     *consensus.ReadIndexer
	lessor    *lessor.Lessor
}

// New builds the daemon; it reaches nobody before Run.
func New(cfg Config, deps Deps) (*Leased, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Clock == nil {
		deps.Clock = clock.Real()
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	l := &Leased{cfg: cfg, deps: deps}
	l.directory = cluster.New(cluster.Config{
		Seeds: append([]string{cfg.Consensus}, cfg.Seeds...), Dialer: deps.Dialer, Log: deps.Log,
	})
	l.session = session.New(session.Config{Owner: "leased " + cfg.Consensus}, l.directory, deps.Log, deps.Metrics)
	l.index = consensus.NewReadIndexer(l.directory, deps.Log)
	l.lessor = lessor.New(lessor.Config{
		Grace: cfg.Grace, SilenceMax: cfg.SilenceMax, ProbeInterval: cfg.ProbeInterval, FeedLossMax: cfg.FeedLossMax,
	}, lessor.Deps{
		Session: l.session, Index: l.index, Directory: l.directory, OpenFeed: l.openFeed,
		Clock: deps.Clock, Log: deps.Log, Metrics: newMetrics(deps.Metrics),
	})
	return l, nil
}

// Register adds the Lessor service.
func (l *Leased) Register(r grpc.ServiceRegistrar) {
	leasepb.RegisterLessorServer(r, &server{lessor: l.lessor})
}

// Run blocks until ctx ends, and then returns nil.
func (l *Leased) Run(ctx context.Context) error {
	return daemon.RunStages(ctx,
		daemon.Stage{l.directory.Run},
		daemon.Stage{l.session.Run, l.index.Run},
		daemon.Stage{l.lessor.Run},
	)
}

// openFeed opens the feed of the own member's store. The member's id is asked
// of its consensusd each time: it is what the claims of this lessor carry.
func (l *Leased) openFeed(ctx context.Context) (uint64, storepb.Store_LeasesClient, error) {
	conn, err := l.deps.Dialer.Dial(l.cfg.Consensus, dial.Control)
	if err != nil {
		return 0, nil, fmt.Errorf("own member: %w", err)
	}
	asked, cancel := context.WithTimeout(ctx, identifyMax)
	defer cancel()
	status, err := consensuspb.NewConsensusClient(conn).GetStatus(asked, &consensuspb.GetStatusRequest{})
	if err != nil {
		return 0, nil, fmt.Errorf("own member: %w", err)
	}
	if status.MemberId == 0 {
		return 0, nil, errors.New("own member: it has no id yet")
	}
	conn, err = l.deps.Dialer.Dial(l.cfg.Store, dial.Control)
	if err != nil {
		return 0, nil, fmt.Errorf("own store: %w", err)
	}
	feed, err := storepb.NewStoreClient(conn).Leases(ctx, &storepb.LeasesRequest{})
	return status.MemberId, feed, err
}

// Package stored is the daemon that owns the state: a pure function of the log,
// readable at any kept revision.
//
// It follows its member's consensusd, applies each entry (internal/apply), keeps
// the rows in an engine (internal/engine) and the present generation of keys in
// memory (services/keyspace), tells gateways how their commands ended
// (internal/outcome), publishes what changed (internal/publish), feeds lessors
// (internal/leases) and answers reads (internal/read). Its promise to those who
// call it is services/store.
//
// A store is ready as soon as it is open: nothing is rebuilt before it serves.
// What the keyspace does not know yet is asked of the engine.
package stored

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/bus"
	"github.com/quartet-kv/quartet/services/bus/nats"
	"github.com/quartet-kv/quartet/services/clock"
	"github.com/quartet-kv/quartet/services/daemon"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/keyspace"
	"github.com/quartet-kv/quartet/stored/internal/apply"
	"github.com/quartet-kv/quartet/stored/internal/compact"
	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/engine/badger"
	"github.com/quartet-kv/quartet/stored/internal/engine/memory"
	"github.com/quartet-kv/quartet/stored/internal/guard"
	"github.com/quartet-kv/quartet/stored/internal/leases"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
	"github.com/quartet-kv/quartet/stored/internal/outcome"
	"github.com/quartet-kv/quartet/stored/internal/pipeline"
	"github.com/quartet-kv/quartet/stored/internal/publish"
	"github.com/quartet-kv/quartet/stored/internal/read"
)

// Deps are what a store needs from outside. Zero fields but Dialer have
// defaults.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Dialer  dial.Dialer
	// Bus is where the store publishes while it is told to; nil is nowhere.
	Bus   bus.Publisher
	Clock clock.Clock

	// engine stands for the configured one, in tests.
	engine engine.Engine
}

// Stored is one store.
type Stored struct {
	config   Config
	log      *slog.Logger
	engine   engine.Engine
	state    *mvcc.State
	hub      *outcome.Hub
	pipeline *pipeline.Pipeline
	publish  *publish.Publisher
	leases   *leases.Feed
	compact  *compact.Compactor
	reads    *read.Server
	start    mvcc.View
	closeBus func() // nil unless the store made the bus

	storepb.UnimplementedStoreServer
}

// New opens the engine and finds where it stands. Run closes it: a Stored that
// is never run keeps its directory locked.
func New(cfg Config, deps Deps) (*Stored, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Clock == nil {
		deps.Clock = clock.Real()
	}
	e := deps.engine
	if e == nil {
		var err error
		if e, err = openEngine(&cfg, deps.Log); err != nil {
			return nil, fmt.Errorf("open the engine: %w", err)
		}
	}
	// Calls may still be served when Run closes the engine.
	e = guard.New(e)
	var closeBus func()
	if deps.Bus == nil && cfg.NATS != "" {
		b, err := nats.Connect(nats.Config{URLs: []string{cfg.NATS}, Name: "stored " + cfg.name(), Log: deps.Log})
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		deps.Bus, closeBus = b, b.Close
	}
	s, err := build(cfg, deps, e)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	s.closeBus = closeBus
	return s, nil
}

func openEngine(cfg *Config, log *slog.Logger) (engine.Engine, error) {
	if cfg.Engine == EngineMemory {
		return memory.New(), nil
	}
	profile := badger.DefaultConfig()
	if cfg.EngineProfile == ProfileSmall {
		profile = badger.SmallConfig()
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, err
	}
	return badger.Open(filepath.Join(cfg.DataDir, EngineBadger), profile, log)
}

// build joins the parts around an engine.
func build(cfg Config, deps Deps, e engine.Engine) (*Stored, error) {
	start, err := apply.LoadView(e)
	if err != nil {
		return nil, err
	}
	ks := keyspace.New(keyspace.Config{BudgetBytes: cfg.KeyspaceBytes})
	ks.Begin().Commit(start.Revision)
	s := &Stored{config: cfg, log: deps.Log, engine: e, state: mvcc.New(ks, e, start), start: start}
	machine, err := apply.Load(s.state, start)
	if err != nil {
		return nil, err
	}
	m := newMetrics(deps.Metrics,
		func() float64 { return float64(ks.Bytes()) },
		func() float64 { return oneIf(ks.Complete()) })
	s.hub = outcome.NewHub(cfg.OutcomeBytesMax, machine.Sessions(), outcome.Metrics{Bytes: m.outcomeBytes, Streams: m.outcomeStreams, Lost: m.outcomesLost})
	ring := publish.NewRing(cfg.RingBytesMax, &buspb.Batch{
		ClusterId: start.ClusterID, At: start.Log.Proto(), PrevIndex: uint64(start.Log.Index), PrevRevision: start.Revision,
		Revision: start.Revision, CompactRevision: start.Compact, RaftTerm: uint64(start.Term),
	})
	s.publish = &publish.Publisher{Ring: ring, Bus: deps.Bus, Clock: deps.Clock, Log: deps.Log, Batches: m.published, Failed: m.publishFailed}
	s.leases = leases.NewFeed(s.state)
	s.reads = read.NewServer(s.state, deps.Log, read.Metrics{Reads: m.reads, Scans: m.scans, Histories: m.histories, Waiting: m.readsWaiting})
	s.pipeline = pipeline.New(pipeline.Config{
		Consensus: cfg.MemberConsensus, Store: cfg.name(),
		SyncEvery: cfg.SyncInterval, SyncBytes: cfg.SyncBytes, BatchBytesMax: cfg.BatchBytesMax,
	}, pipeline.Deps{
		Dialer: deps.Dialer, Clock: deps.Clock, Log: deps.Log, Engine: e, State: s.state, Machine: machine,
		Hub: s.hub, Ring: ring, Leases: s.leases,
		Metrics: pipeline.Metrics{
			Entries: m.entries, Commands: m.commands, Revisions: m.revisions, ApplySeconds: m.applySeconds,
			CommitSeconds: m.commitSeconds, SyncSeconds: m.syncSeconds, Applied: m.applied, Synced: m.synced, Revision: m.revision,
		},
	})
	s.compact = compact.New(s.state, s.pipeline.WaitSynced, deps.Log, m.purgedVersions)
	return s, nil
}

// Register adds the Store service.
func (s *Stored) Register(r grpc.ServiceRegistrar) { storepb.RegisterStoreServer(r, s) }

// Run follows the log until ctx ends, and returns nil; or until the store cannot
// go on, and returns why. It syncs and closes the engine before it returns; calls
// that still need it fail.
func (s *Stored) Run(ctx context.Context) error {
	v := &s.start
	s.log.Info("store opened", "index", uint64(v.Log.Index), "term", uint64(v.Log.Term), "revision", v.Revision, "stamp", uint64(v.Stamp), "engine", s.config.Engine)
	err := daemon.RunStages(ctx,
		daemon.Stage{s.pipeline.Run},
		daemon.Stage{s.publish.Run, s.compact.Run, s.fill},
	)
	if s.closeBus != nil {
		s.closeBus()
	}
	return errors.Join(err, s.engine.Close())
}

// fillChunk is how many keys are given to the keyspace at a time.
const fillChunk = 512

// fill gives the engine's keys to the keyspace, as of where the store started.
func (s *Stored) fill(ctx context.Context) error {
	ks := s.state.Keyspace
	items := make([]keyspace.Item, 0, fillChunk)
	full := false
	err := mvcc.EngineAscend(s.engine, nil, nil, s.start.Stamp, func(it *keyspace.Item) bool {
		items = append(items, *it)
		if len(items) == fillChunk {
			full = !ks.Fill(items)
			items = make([]keyspace.Item, 0, fillChunk)
		}
		return !full && ctx.Err() == nil
	})
	if err == nil && ctx.Err() == nil && !full && (len(items) == 0 || ks.Fill(items)) {
		ks.Filled()
	}
	if err != nil {
		return fmt.Errorf("fill the keyspace: %w", err)
	}
	s.log.Info("keyspace filled", "complete", ks.Complete(), "bytes", ks.Bytes())
	<-ctx.Done()
	return nil
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

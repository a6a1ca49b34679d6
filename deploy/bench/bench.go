// Package bench measures clusters with etcd's client: throughput, latency, and,
// for clusters that it starts itself, what the servers spend.
//
// The client is always a process of its own. In `up` the whole cluster is one
// server process; in the other kinds there are several, and their sum counts.
// CPU per operation (user and system time of all server processes, from /proc,
// divided by the operations) is the figure that holds on a shared machine; the
// client's own is shown apart. Peak memory is the sum over the server processes
// of the largest resident set since their start.
//
// Several targets in one run are measured in turn, workload by workload and
// round by round, on the same disk, since a machine drifts within an hour by
// more than what one wants to see. The median of the rounds is reported, and
// the ratio to the better etcd of the run.
package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/quartet-kv/quartet/deploy/harness"
)

// load is what a workload needs to know.
type load struct {
	cfg     Config
	clients []*clientv3.Client
	stop    chan struct{} // closed when the time is up
	left    atomic.Int64  // operations that nobody has begun
}

// take reports whether one more operation is to be begun.
func (l *load) take() bool {
	select {
	case <-l.stop:
		return false
	default:
	}
	return l.cfg.Total <= 0 || l.left.Add(-1) >= 0
}

func (l *load) client(worker int) *clientv3.Client { return l.clients[worker%len(l.clients)] }

// target is something to measure: a cluster of the harness, or endpoints.
type target struct {
	name      string
	endpoints []string
	cluster   *harness.Cluster // nil if it is not ours
}

// sample is the outcome of one round of a workload on a target.
type sample struct {
	ops        int64
	took       time.Duration
	p50, p99   time.Duration
	serverCPU  time.Duration // 0 if unknown
	clientCPU  time.Duration
	serverPeak int64 // bytes, 0 if unknown
}

// Run measures and returns a row for every workload and target.
func Run(ctx context.Context, cfg Config, log *slog.Logger) ([]Row, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	targets, stop, err := openTargets(ctx, cfg, log)
	defer stop()
	if err != nil {
		return nil, err
	}
	var rows []Row
	for _, name := range cfg.Workloads {
		w := workloads[name]
		samples := map[string][]sample{}
		for round := range cfg.Rounds {
			for _, tg := range targets {
				s, err := measure(ctx, cfg, tg, w)
				if err != nil {
					return rows, fmt.Errorf("%s on %s: %w", name, tg.name, err)
				}
				log.Info("measured", "workload", name, "target", tg.name, "round", round+1, "ops", s.ops, "took", s.took)
				samples[tg.name] = append(samples[tg.name], s)
			}
		}
		for _, tg := range targets {
			rows = append(rows, newRow(name, tg.name, samples[tg.name]))
		}
	}
	addRatios(rows)
	return rows, nil
}

// openTargets starts the clusters that cfg asks for. stop ends them; it may be
// called whatever the error.
func openTargets(ctx context.Context, cfg Config, log *slog.Logger) (targets []*target, stop func(), err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, func() {}, err
	}
	stop = func() {
		for _, tg := range targets {
			if tg.cluster == nil {
				continue
			}
			if err := tg.cluster.Close(); err != nil {
				log.Error("close cluster", "target", tg.name, "err", err)
			}
		}
		os.RemoveAll(dir)
	}
	if len(cfg.Endpoints) > 0 {
		targets = append(targets, &target{name: "endpoints", endpoints: cfg.Endpoints})
	}
	bins := harness.NewBinaries(dir)
	bins.Fetch = true
	if cfg.Quartet != "" {
		bins.Quartet = cfg.Quartet
	}
	if cfg.Oracle != "" {
		bins.Oracle = cfg.Oracle
	}
	for _, kind := range cfg.Targets {
		c, err := harness.Start(ctx, harness.Options{Kind: kind, Members: cfg.Members, Binaries: bins, Engine: cfg.Engine})
		if err != nil {
			return targets, stop, err
		}
		log.Info("started", "target", kind, "endpoints", c.Endpoints(), "processes", len(c.Processes()))
		targets = append(targets, &target{name: string(kind), endpoints: c.Endpoints(), cluster: c})
	}
	return targets, stop, nil
}

// connect opens cfg.Conns connections, each to one endpoint, in turn over all
// of them or all to the leader's.
func connect(ctx context.Context, cfg Config, tg *target) ([]*clientv3.Client, error) {
	endpoints := tg.endpoints
	if cfg.At == atLeader && tg.cluster != nil {
		_, leader, err := tg.cluster.Leader(ctx)
		if err != nil {
			return nil, err
		}
		if leader != "" {
			endpoints = []string{leader}
		}
	}
	var clients []*clientv3.Client
	for i := range cfg.Conns {
		cl, err := clientv3.New(clientv3.Config{
			Endpoints:   []string{endpoints[i%len(endpoints)]},
			DialTimeout: dialWithin,
			Logger:      zap.NewNop(),
		})
		if err != nil {
			return clients, err
		}
		clients = append(clients, cl)
	}
	return clients, nil
}

// measure runs one round of a workload. Preparation is not counted.
func measure(ctx context.Context, cfg Config, tg *target, w workload) (sample, error) {
	clients, err := connect(ctx, cfg, tg)
	defer func() {
		for _, cl := range clients {
			cl.Close()
		}
	}()
	if err != nil {
		return sample{}, err
	}
	l := &load{cfg: cfg, clients: clients, stop: make(chan struct{})}
	l.left.Store(int64(cfg.Total))
	if w.prepare != nil {
		if err := w.prepare(ctx, l); err != nil {
			return sample{}, fmt.Errorf("prepare: %w", err)
		}
	}
	before, err := usage(tg)
	if err != nil {
		return sample{}, err
	}
	clientBefore := ownCPU()
	began := time.Now()
	if cfg.Duration > 0 {
		timer := time.AfterFunc(cfg.Duration, func() { close(l.stop) })
		defer timer.Stop()
	}
	latencies, err := w.run(ctx, l)
	if err != nil {
		return sample{}, err
	}
	s := sample{ops: int64(len(latencies)), took: time.Since(began), clientCPU: ownCPU() - clientBefore}
	after, err := usage(tg)
	if err != nil {
		return sample{}, err
	}
	if s.ops == 0 {
		return s, errors.New("no operation was done")
	}
	s.serverCPU, s.serverPeak = after.CPU-before.CPU, after.PeakRSS
	slices.Sort(latencies)
	s.p50, s.p99 = percentile(latencies, 50), percentile(latencies, 99)
	return s, nil
}

func usage(tg *target) (harness.Usage, error) {
	if tg.cluster == nil {
		return harness.Usage{}, nil
	}
	return tg.cluster.Usage()
}

// percentile of sorted values, by nearest rank.
func percentile(sorted []time.Duration, p int) time.Duration {
	rank := (len(sorted)*p + 99) / 100
	return sorted[max(rank, 1)-1]
}

// each runs op from cfg.Clients callers until nothing is left to take, and
// returns how long each call took. The first error ends it.
func each(ctx context.Context, l *load, op func(ctx context.Context, worker, n int) error) ([]time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	perWorker := make([][]time.Duration, l.cfg.Clients)
	var wg sync.WaitGroup
	for w := range l.cfg.Clients {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil && l.take(); n++ {
				began := time.Now()
				if err := op(ctx, w, n); err != nil {
					cancel(err)
					return
				}
				perWorker[w] = append(perWorker[w], time.Since(began))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return slices.Concat(perWorker...), nil
}

package gatewayd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/gatewayd/internal/auth"
	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/gatewayd/internal/kv"
	"github.com/quartet-kv/quartet/gatewayd/internal/lease"
	"github.com/quartet-kv/quartet/gatewayd/internal/maintenance"
	"github.com/quartet-kv/quartet/gatewayd/internal/members"
	"github.com/quartet-kv/quartet/gatewayd/internal/watch"
	"github.com/quartet-kv/quartet/services/bus"
	"github.com/quartet-kv/quartet/services/bus/follow"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/consensus"
	"github.com/quartet-kv/quartet/services/daemon"
	"github.com/quartet-kv/quartet/services/session"
	"github.com/quartet-kv/quartet/services/store"
)

// face is a gateway that knows whom it speaks for: the circle's clients and the
// services on them.
type face struct {
	log       *slog.Logger
	directory *cluster.Directory
	member    uint64
	election  time.Duration

	session *session.Session
	index   *consensus.ReadIndexer
	reader  *store.Reader
	renewer *lease.Renewer
	edge    *edge.Edge
	hub     *watch.Hub
	news    *bus.Reader
	server  *grpc.Server
	health  *health.Server
	quorate atomic.Bool // what health says
}

func (g *Gatewayd) newFace(id edge.Identity) (*face, error) {
	c := g.config
	f := &face{log: g.log, directory: g.directory, member: id.MemberID, election: c.ElectionTimeout}
	f.edge = edge.New(edge.Config{
		Identity: id, Directory: g.directory,
		RequestTimeout: c.requestTimeout(), ElectionTimeout: c.ElectionTimeout,
		Metrics: edge.NewMetrics(g.deps.Metrics),
	})
	f.session = session.New(session.Config{
		Owner: g.name, Member: id.MemberID, ClientURLs: g.urls,
		CommandBytesMax: c.RequestBytesMax,
	}, g.directory, g.log, g.deps.Metrics)
	f.index = consensus.NewReadIndexer(g.directory, g.log)
	f.reader = store.NewReader(store.ReaderConfig{Prefer: id.MemberID}, g.directory, g.log)
	f.renewer = lease.NewRenewer(g.directory, c.requestTimeout(), g.log)
	if err := f.newWatch(g, id); err != nil {
		return nil, err
	}
	f.newServer(g)
	registerMetrics(g.deps.Metrics, f)
	return f, nil
}

func (f *face) newWatch(g *Gatewayd, id edge.Identity) (err error) {
	c := watch.DefaultConfig()
	c.RingBytesMax = g.config.WatchRingBytesMax
	c.ProgressInterval = g.config.WatchProgressInterval
	c.RequestBytesMax = g.config.RequestBytesMax
	f.hub, err = watch.New(c, watch.Deps{
		Log:     g.log,
		Metrics: g.deps.Metrics,
		Header:  func(revision int64) *etcdserverpb.ResponseHeader { return f.edge.Header(revision, 0) },
		Floor:   f.edge.Floor.Revision,
		History: f.history,
	})
	if err != nil {
		return err
	}
	subscriber := g.deps.Bus
	if subscriber == nil {
		subscriber = follow.New(f.follow, bus.QueueLimits{})
	}
	f.news = bus.NewReader(bus.ReaderConfig{ClusterID: id.ClusterID, Subscriber: subscriber, Pull: f.follow, Log: g.log})
	return nil
}

// newServer registers every service on a gRPC server for clients.
func (f *face) newServer(g *Gatewayd) {
	f.server = newServer(g.config, f.edge)
	kv.New(kv.Config{RequestBytesMax: g.config.RequestBytesMax, TxnOpsMax: g.config.TxnOpsMax}, kv.Deps{
		Edge: f.edge, Session: f.session, Index: f.index, Reader: f.reader, WaitCompacted: f.waitCompacted,
	}).Register(f.server)
	etcdserverpb.RegisterWatchServer(f.server, f.hub)
	etcdserverpb.RegisterLeaseServer(f.server, lease.New(lease.Deps{
		Edge: f.edge, Session: f.session, Index: f.index, Reader: f.reader, Renewer: f.renewer,
	}, g.config.ElectionTimeout))
	etcdserverpb.RegisterClusterServer(f.server, members.New(members.Deps{
		Edge: f.edge, Directory: g.directory, Index: f.index, Self: g.self(f.member),
	}))
	etcdserverpb.RegisterMaintenanceServer(f.server, maintenance.New(maintenance.Deps{
		Edge: f.edge, Directory: g.directory, Reader: f.reader, Version: Version, StorageVersion: StorageVersion,
	}))
	etcdserverpb.RegisterAuthServer(f.server, auth.New(f.edge, f.reader))
	f.health = health.NewServer()
	f.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(f.server, f.health)
}

func (f *face) run(ctx context.Context, listeners []net.Listener) error {
	return daemon.RunStages(ctx,
		daemon.Stage{f.session.Run, f.index.Run, f.reader.Run, f.renewer.Run, f.edge.Watch},
		daemon.Stage{f.readNews},
		daemon.Stage{
			f.hub.Run, // ends its streams while the server waits for them
			func(ctx context.Context) error { return f.serve(ctx, listeners) },
			f.watchHealth,
		},
	)
}

// ready returns when a linearizable read works.
func (f *face) ready(ctx context.Context) error {
	for {
		at, _, err := f.index.Wait(ctx)
		if err == nil {
			err = f.edge.Reach(ctx, f.reader, at)
		}
		if err == nil {
			return nil
		}
		select {
		case <-time.After(f.election / 10):
		case <-ctx.Done():
			return fmt.Errorf("no linearizable read yet: %w", err)
		}
	}
}

// readNews feeds the hub. A hub that has stopped is not a failure of the news.
func (f *face) readNews(ctx context.Context) error {
	err := f.news.Run(ctx, f.hub)
	if errors.Is(err, rpctypes.ErrGRPCStopped) { // the hub stops first
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

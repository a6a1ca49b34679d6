package gatewayd

import (
	"context"
	"fmt"
	"math"
	"net"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/gatewayd/internal/wire"
)

// Limits of the clients' gRPC server, those of etcd.
const (
	// requestOverheadBytes is what a message may have beyond a request.
	requestOverheadBytes = 512 << 10
	responseBytesMax     = math.MaxInt32
	pingIntervalMin      = 5 * time.Second
	keepaliveTime        = 2 * time.Hour
	keepaliveTimeout     = 20 * time.Second

	bufferBytes = 32 << 10
	// stopGrace is how long calls under way may take to end when the gateway
	// stops.
	stopGrace = time.Second
)

func newServer(c Config, e *edge.Edge) *grpc.Server {
	return grpc.NewServer(
		grpc.ForceServerCodecV2(wire.NewCodec()),
		grpc.UnaryInterceptor(e.Unary),
		grpc.StreamInterceptor(e.Stream),
		grpc.MaxRecvMsgSize(c.RequestBytesMax+requestOverheadBytes),
		grpc.MaxSendMsgSize(responseBytesMax),
		grpc.MaxConcurrentStreams(c.ConcurrentStreamsMax),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingIntervalMin}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.ReadBufferSize(bufferBytes),
		grpc.WriteBufferSize(bufferBytes),
	)
}

// serve accepts clients until ctx ends. Then streams are ended, so that clients
// go elsewhere, and calls are given a moment.
func (f *face) serve(ctx context.Context, listeners []net.Listener) error {
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- fmt.Errorf("serve clients on %s: %w", l.Addr(), f.server.Serve(l)) }()
	}
	select {
	case err := <-failed:
		f.server.Stop()
		return err
	case <-ctx.Done():
	}
	f.health.Shutdown()
	f.edge.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.server.GracefulStop()
	}()
	select {
	case <-done:
	case <-time.After(stopGrace):
		f.server.Stop()
		<-done
	}
	return ctx.Err()
}

// watchHealth says SERVING as long as a quorum answers, asking once per
// election timeout.
func (f *face) watchHealth(ctx context.Context) error {
	tick := time.NewTicker(f.election)
	defer tick.Stop()
	was := healthpb.HealthCheckResponse_NOT_SERVING
	for {
		now := healthpb.HealthCheckResponse_SERVING
		if err := f.askQuorum(ctx); err != nil {
			now = healthpb.HealthCheckResponse_NOT_SERVING
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if now != was {
			f.log.Info("health", "status", now.String())
			f.health.SetServingStatus("", now)
			f.quorate.Store(now == healthpb.HealthCheckResponse_SERVING)
			was = now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// askQuorum fails when no read index is to be had within an election timeout.
func (f *face) askQuorum(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.election)
	defer cancel()
	_, _, err := f.index.Wait(ctx)
	return err
}

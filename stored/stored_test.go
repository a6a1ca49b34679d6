package stored_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/daemon"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/inproc"
	"github.com/quartet-kv/quartet/services/store/storetest"
	"github.com/quartet-kv/quartet/stored"
)

func TestStoreInProcess(t *testing.T) {
	storetest.Run(t, func(t testing.TB, log *storetest.Log) storetest.Store {
		cfg := config(stored.EngineMemory, "")
		return storetest.Store{Client: start(t, log, cfg, inprocServer).client}
	})
}

func TestStoreOverGRPC(t *testing.T) {
	storetest.Run(t, func(t testing.TB, log *storetest.Log) storetest.Store {
		cfg := config(stored.EngineBadger, t.TempDir())
		r := start(t, log, cfg, grpcServer)
		return storetest.Store{Client: r.client, Restart: func() storepb.StoreClient {
			r.stop()
			return start(t, log, cfg, grpcServer).client
		}}
	})
}

func config(engine, dir string) stored.Config {
	cfg := stored.DefaultConfig()
	cfg.Engine, cfg.DataDir, cfg.EngineProfile = engine, dir, stored.ProfileSmall
	cfg.MemberConsensus = []string{"consensus"}
	cfg.SyncInterval = 50 * time.Millisecond
	return cfg
}

// running is a store that runs.
type running struct {
	client storepb.StoreClient
	stop   func()
}

// server serves a store's calls, and says how to reach it and how to stop it.
type server func(t testing.TB, s *stored.Stored) (client grpc.ClientConnInterface, stop func())

func inprocServer(_ testing.TB, s *stored.Stored) (grpc.ClientConnInterface, func()) {
	server := inproc.NewServer()
	s.Register(server)
	return server.Conn(), server.Stop
}

func grpcServer(t testing.TB, s *stored.Stored) (grpc.ClientConnInterface, func()) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := daemon.NewServer()
	s.Register(server)
	go server.Serve(lis) //nolint:errcheck // ends with Stop
	dialer := dial.NewGRPC()
	conn, err := dialer.Dial(lis.Addr().String(), dial.Control)
	if err != nil {
		t.Fatal(err)
	}
	return conn, func() { dialer.Close(); server.Stop() }
}

// start runs a store on a log until stop, or the end of the test.
func start(t testing.TB, log *storetest.Log, cfg stored.Config, serve server) running {
	t.Helper()
	fabric := inproc.NewFabric()
	consensuspb.RegisterConsensusServer(fabric.Server("consensus"), log)
	s, err := stored.New(cfg, stored.Deps{Dialer: fabric, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	conn, stopServer := serve(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	r := running{client: storepb.NewStoreClient(conn), stop: func() {
		if stopped {
			return
		}
		stopped = true
		stopServer()
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	}}
	t.Cleanup(r.stop)
	return r
}

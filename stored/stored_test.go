package stored_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/daemon"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/inproc"
	"github.com/quartet-kv/quartet/services/logid"
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
	return startWith(t, log, cfg, stored.Deps{}, serve)
}

func startWith(t testing.TB, log *storetest.Log, cfg stored.Config, deps stored.Deps, serve server) running {
	t.Helper()
	fabric := inproc.NewFabric()
	consensuspb.RegisterConsensusServer(fabric.Server("consensus"), log)
	deps.Dialer = fabric
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	s, err := stored.New(cfg, deps)
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

func TestPublishesWhenTold(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	log := storetest.NewLog()
	bus := make(published, 1000)
	cfg := config(stored.EngineMemory, "")
	r := startWith(t, log, cfg, stored.Deps{Bus: bus}, inprocServer)
	s := storetest.OpenSession(t, ctx, log, r.client, &logpb.SessionOpen{Nonce: []byte("n")})
	s.Put("a", "1")
	log.SetPublish(true)
	for b := range bus { // an idle publisher says so
		if b.PrevIndex == b.At.GetIndex() && b.Revision == 2 {
			break
		}
	}
	s.Put("a", "2")
	log.Append(nil)
	at, revisions := log.Last().Index-2, 0
	for b := range bus {
		if b.PrevIndex != uint64(at) {
			t.Fatalf("published %d to %d after %d", b.PrevIndex, b.At.GetIndex(), at)
		}
		at, revisions = logid.Index(b.At.GetIndex()), revisions+len(b.Revisions)
		if at == log.Last().Index {
			break
		}
	}
	if revisions != 1 {
		t.Errorf("%d revisions published", revisions)
	}
}

// published is a bus that is heard by one.
type published chan *buspb.Batch

func (p published) Publish(_ context.Context, b *buspb.Batch) error {
	select {
	case p <- b:
		return nil
	default:
		return errors.New("nobody hears")
	}
}

func TestFollowsAnotherMemberWhileItsOwnIsGone(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	log := storetest.NewLog()
	cfg := config(stored.EngineMemory, "")
	cfg.MemberConsensus = []string{"gone", "consensus"}
	r := startWith(t, log, cfg, stored.Deps{}, inprocServer)
	s := storetest.OpenSession(t, ctx, log, r.client, &logpb.SessionOpen{Nonce: []byte("n")})
	if rev := s.Put("a", "1"); rev != 2 {
		t.Errorf("revision %d", rev)
	}
}

func TestConfigNamesEveryViolation(t *testing.T) {
	cfg := stored.DefaultConfig()
	cfg.Engine, cfg.SyncInterval, cfg.RingBytesMax = "abacus", 0, 1
	err := cfg.Validate()
	for _, flag := range []string{"--engine=abacus", "--sync-interval=0s", "--ring-bytes-max=1", "--member-consensus="} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%v does not name %s", err, flag)
		}
	}
}

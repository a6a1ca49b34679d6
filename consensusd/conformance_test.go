package consensusd_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/quartet-kv/quartet/consensusd"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/consensus/consensustest"
	"github.com/quartet-kv/quartet/services/daemon"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/inproc"
)

const conformancePayloadMax = 4 << 10

func TestKeepsThePromiseInProcess(t *testing.T) {
	consensustest.Run(t, func(t *testing.T) consensustest.Cluster {
		fabric := inproc.NewFabric()
		return openConformance(t, []string{"m1", "m2", "m3"}, fabric, func(i int) (grpc.ServiceRegistrar, func()) {
			s := fabric.Server(fmt.Sprint("m", i+1))
			return s, s.Stop
		})
	})
}

func TestKeepsThePromiseOverTheNetwork(t *testing.T) {
	consensustest.Run(t, func(t *testing.T) consensustest.Cluster {
		var addrs []string
		var listeners []net.Listener
		for range 3 {
			l, err := daemon.Listen("127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			listeners, addrs = append(listeners, l), append(addrs, l.Addr().String())
		}
		dialer := dial.NewGRPC()
		t.Cleanup(func() { dialer.Close() })
		servers := make([]*grpc.Server, 3)
		c := openConformance(t, addrs, dialer, func(i int) (grpc.ServiceRegistrar, func()) {
			servers[i] = daemon.NewServer()
			return servers[i], servers[i].Stop
		})
		for i, s := range servers {
			go s.Serve(listeners[i])
		}
		return c
	})
}

// openConformance runs three members; server gives each what to register on
// and how to stop that.
func openConformance(t *testing.T, addrs []string, d dial.Dialer, server func(i int) (grpc.ServiceRegistrar, func())) consensustest.Cluster {
	t.Helper()
	out := consensustest.Cluster{PayloadBytesMax: conformancePayloadMax}
	var rows []consensusd.Member
	for i, addr := range addrs {
		rows = append(rows, consensusd.Member{Name: fmt.Sprint("m", i+1), PeerURLs: []string{"http://" + addr}})
	}
	for i, addr := range addrs {
		cfg := consensusd.DefaultConfig()
		cfg.Name, cfg.Members, cfg.DataDir = rows[i].Name, rows, t.TempDir()
		cfg.HeartbeatInterval, cfg.ElectionTimeout = 10*time.Millisecond, 200*time.Millisecond
		cfg.SegmentBytes, cfg.PayloadBytesMax = 1<<20, conformancePayloadMax
		c, err := consensusd.New(cfg, consensusd.Deps{
			Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Dialer: d,
		})
		if err != nil {
			t.Fatal(err)
		}
		registrar, stopServer := server(i)
		c.Register(registrar)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		stop := sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", cfg.Name, err)
			}
			stopServer()
		})
		t.Cleanup(stop)
		conn, err := d.Dial(addr, dial.Control)
		if err != nil {
			t.Fatal(err)
		}
		out.Members = append(out.Members, consensustest.Member{Client: consensuspb.NewConsensusClient(conn), Stop: stop})
	}
	return out
}

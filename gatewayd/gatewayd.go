package gatewayd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/bus"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/daemon"
	"github.com/quartet-kv/quartet/services/dial"
)

// Version is the etcd version whose API a gateway speaks, and StorageVersion
// the one of its state, as clients see them. Some parse every dotted part as a
// number, so neither has more than three.
const (
	Version        = "3.7.3"
	StorageVersion = "3.7.0"
)

// Deps is what a gateway needs from its process.
type Deps struct {
	Log *slog.Logger
	// Metrics; nil keeps them to itself.
	Metrics prometheus.Registerer
	Dialer  dial.Dialer
	// Bus brings what stores applied; nil follows a store.
	Bus bus.Subscriber
	// Listeners, when given, are used in place of Config.ClientListen.
	Listeners []net.Listener
}

// Gatewayd is one gateway.
type Gatewayd struct {
	config    Config
	deps      Deps
	log       *slog.Logger
	name      string
	urls      []string
	listeners []net.Listener
	directory *cluster.Directory

	// serving closes when face is set.
	serving chan struct{}
	face    *face
}

// New returns a gateway that listens already and accepts nobody before Run.
func New(c Config, d Deps) (*Gatewayd, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Metrics == nil {
		d.Metrics = prometheus.NewRegistry()
	}
	g := &Gatewayd{config: c, deps: d, log: d.Log, listeners: d.Listeners, serving: make(chan struct{})}
	if err := g.listen(); err != nil {
		return nil, err
	}
	g.urls = c.AdvertiseClientURLs
	if len(g.urls) == 0 {
		for _, l := range g.listeners {
			g.urls = append(g.urls, clientURL(l.Addr()))
			if tcp, ok := l.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
				g.log.Warn("clients elsewhere cannot reach the advertised URL; give --advertise-client-urls", "url", clientURL(l.Addr()))
			}
		}
	}
	if g.name = c.Name; g.name == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--name: give a name, the host has none: %w", err), g.close())
		}
		g.name = "gatewayd@" + host + "/" + g.listeners[0].Addr().String()
	}
	g.directory = cluster.New(cluster.Config{Seeds: c.Consensus, Dialer: d.Dialer, Log: d.Log})
	return g, nil
}

func (g *Gatewayd) listen() error {
	if len(g.listeners) > 0 {
		return nil
	}
	for _, addr := range g.config.ClientListen {
		l, err := daemon.Listen(addr)
		if err != nil {
			return errors.Join(err, g.close())
		}
		g.listeners = append(g.listeners, l)
	}
	return nil
}

func (g *Gatewayd) close() error {
	var all []error
	for _, l := range g.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

func clientURL(a net.Addr) string {
	if a.Network() == "unix" {
		return "unix://" + a.String()
	}
	return "http://" + a.String()
}

// Addrs are the addresses that clients can connect to.
func (g *Gatewayd) Addrs() []string {
	var all []string
	for _, l := range g.listeners {
		all = append(all, l.Addr().String())
	}
	return all
}

// Register implements daemon.Service. A gateway serves nothing to other daemons.
func (g *Gatewayd) Register(grpc.ServiceRegistrar) {}

// Run serves clients until ctx ends; then it lets calls under way end, for a
// moment, and returns nil.
func (g *Gatewayd) Run(ctx context.Context) error {
	defer g.close()
	err := daemon.RunStages(ctx,
		daemon.Stage{g.directory.Run},
		daemon.Stage{g.serve},
	)
	if err != nil {
		return fmt.Errorf("gateway %s: %w", g.name, err)
	}
	return nil
}

// serve finds out whom to speak for, and then serves.
func (g *Gatewayd) serve(ctx context.Context) error {
	id, err := g.identify(ctx)
	if err != nil {
		return err
	}
	f, err := g.newFace(id)
	if err != nil {
		return err
	}
	g.log.Info("serving clients", "name", g.name, "addrs", strings.Join(g.Addrs(), ","), "member", fmt.Sprintf("%x", id.MemberID))
	g.face = f
	close(g.serving)
	return f.run(ctx, g.listeners)
}

// Ready returns when a linearizable read works, or with the last error when ctx
// ends.
func (g *Gatewayd) Ready(ctx context.Context) error {
	select {
	case <-g.serving:
		return g.face.ready(ctx)
	case <-ctx.Done():
		return fmt.Errorf("gateway %s has not reached a member at %s: %w", g.name, strings.Join(g.config.Consensus, ","), ctx.Err())
	}
}

// self is the gateway as its session tells of it.
func (g *Gatewayd) self(member uint64) *storepb.Gateway {
	return &storepb.Gateway{Name: g.name, Member: member, ClientUrls: slices.Clone(g.urls)}
}

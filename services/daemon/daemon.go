package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/quartet-kv/quartet/services/dial"
)

// Service is a daemon's work, without the process around it.
type Service interface {
	// Register adds the gRPC services that the daemon serves to its peers.
	Register(grpc.ServiceRegistrar)
	// Run blocks until ctx ends (and then returns nil) or the daemon cannot go
	// on.
	Run(ctx context.Context) error
}

// Env is what a process gives to its Service.
type Env struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Dialer  dial.Dialer
}

// Config is a daemon's configuration.
type Config interface {
	AddFlags(*pflag.FlagSet)
	// Validate reports every violation at once, naming flag, value and remedy.
	Validate() error
}

// Limits of a daemon's process.
const (
	metricsReadHeader = 5 * time.Second
	bufferBytes       = 64 << 10
)

// process is the part of the configuration that every daemon has.
type process struct {
	listen        string
	metricsListen string
	logLevel      string
}

func (p *process) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&p.listen, "listen", "127.0.0.1:0", "address for the other daemons (host:port or unix:path)")
	fs.StringVar(&p.metricsListen, "metrics-listen", "", "address of an HTTP server for /metrics; empty is none")
	fs.StringVar(&p.logLevel, "log-level", "info", "debug, info, warn or error")
}

func (p *process) validate() error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(p.logLevel)); err != nil {
		return fmt.Errorf("--log-level=%s: not a level; use debug, info, warn or error", p.logLevel)
	}
	return nil
}

// Command is the command line of one daemon. build gets an Env for a process
// of its own.
func Command(name, short string, cfg Config, build func(Env) (Service, error)) *cobra.Command {
	var p process
	cmd := &cobra.Command{
		Use:           name,
		Short:         short,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(FlagsFromEnv(cmd.Flags(), "QUARTET_"+name), p.validate(), cfg.Validate()); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return run(ctx, name, p, build)
		},
	}
	p.addFlags(cmd.Flags())
	cfg.AddFlags(cmd.Flags())
	return cmd
}

// Main runs a command as a process and exits.
func Main(cmd *cobra.Command) {
	if err := cmd.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", cmd.Name(), err)
		os.Exit(1)
	}
}

// FlagsFromEnv sets each flag that was not given on the command line from its
// environment twin: prefix, underscore and the flag's name in upper case with
// dashes as underscores.
func FlagsFromEnv(fs *pflag.FlagSet, prefix string) error {
	var all []error
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			return
		}
		key := strings.ToUpper(strings.ReplaceAll(prefix+"_"+f.Name, "-", "_"))
		if v, ok := os.LookupEnv(key); ok {
			if err := fs.Set(f.Name, v); err != nil {
				all = append(all, fmt.Errorf("%s=%s: %w", key, v, err))
			}
		}
	})
	return errors.Join(all...)
}

// NewLog is the logger of a process: text on stderr.
func NewLog(level string) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // validated before
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l}))
}

func run(ctx context.Context, name string, p process, build func(Env) (Service, error)) error {
	dialer := dial.NewGRPC()
	defer dialer.Close()
	registry := NewRegistry()
	log := NewLog(p.logLevel).With("daemon", name)
	svc, err := build(Env{Log: log, Metrics: registry, Dialer: dialer})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if p.metricsListen != "" {
		g.Go(func() error { return ServeMetrics(ctx, p.metricsListen, registry) })
	}
	g.Go(func() error { return Serve(ctx, p.listen, log, svc) })
	return g.Wait()
}

// NewRegistry is a registry with the process' own metrics.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// NewServer is a gRPC server as daemons serve each other with.
func NewServer() *grpc.Server {
	return grpc.NewServer(
		grpc.MaxRecvMsgSize(dial.MessageBytesMax),
		grpc.MaxSendMsgSize(dial.MessageBytesMax),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.ReadBufferSize(bufferBytes),
		grpc.WriteBufferSize(bufferBytes),
	)
}

// Serve registers the services on one gRPC server at addr and runs them until
// ctx ends or one of them fails.
func Serve(ctx context.Context, addr string, log *slog.Logger, services ...Service) error {
	lis, err := Listen(addr)
	if err != nil {
		return err
	}
	server := NewServer()
	state := health.NewServer()
	healthpb.RegisterHealthServer(server, state)
	for _, s := range services {
		s.Register(server)
	}
	g, runCtx := errgroup.WithContext(ctx)
	for _, s := range services {
		g.Go(func() error { return s.Run(runCtx) })
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	g.Go(func() error {
		select {
		case err := <-served:
			return fmt.Errorf("serve %s: %w", lis.Addr(), err)
		case <-runCtx.Done():
			return nil
		}
	})
	log.Info("serving", "addr", lis.Addr().String())
	err = g.Wait()
	state.Shutdown()
	// The services have stopped, so calls in flight can only fail.
	server.Stop()
	return err
}

// Listen opens host:port or unix:path.
func Listen(addr string) (net.Listener, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	lis, err := net.Listen(network, addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return lis, nil
}

// ServeMetrics serves /metrics of registry at addr until ctx ends.
func ServeMetrics(ctx context.Context, addr string, registry *prometheus.Registry) error {
	lis, err := Listen(addr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: metricsReadHeader}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

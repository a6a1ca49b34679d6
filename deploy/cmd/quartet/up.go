package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/quartet-kv/quartet/deploy/allinone"
	"github.com/quartet-kv/quartet/deploy/split"
	"github.com/quartet-kv/quartet/services/daemon"
)

// Limits of `up`.
const (
	membersMax  = 9
	gatewaysMax = 64
	// readyMax is how long a cluster may take before `up` gives up on it.
	readyMax = 2 * time.Minute
)

// upConfig is the command line of `up`.
type upConfig struct {
	members    int
	gateways   int
	clientAddr string
	dataDir    string
	engine     string
	split      bool
	logLevel   string
}

func upCommand() *cobra.Command {
	var c upConfig
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a whole cluster on this machine",
		Long: `Runs a whole cluster: in this process, or with --split every daemon (and a NATS
server) as a process of its own. It says "ready to serve client requests" when a
linearizable read works. Data stays in --data-dir; a second start continues from it.
Ctrl-C stops everything.

With --split, processes.tsv in the data directory lists name, pid, address and full
command line of every process, and logs/ holds what they say: kill, pause and start
again by hand what you like.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(daemon.FlagsFromEnv(cmd.Flags(), "QUARTET_UP"), c.validate()); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return c.run(ctx, cmd.OutOrStdout())
		},
	}
	fs := cmd.Flags()
	fs.IntVar(&c.members, "members", 3, "number of members")
	fs.IntVar(&c.gateways, "gateways", 1, "number of gateways")
	fs.StringVar(&c.clientAddr, "client-addr", "127.0.0.1:2379", "address of the first gateway; further ones are on the next ports")
	fs.StringVar(&c.dataDir, "data-dir", "./quartet-data", "directory for everything that is kept")
	fs.StringVar(&c.engine, "engine", "badger", "storage engine: badger or memory")
	fs.BoolVar(&c.split, "split", false, "every daemon, and a NATS server, as a process of its own")
	fs.StringVar(&c.logLevel, "log-level", "warn", "debug, info, warn or error")
	return cmd
}

// validate reports every violation at once.
func (c *upConfig) validate() error {
	var all []error
	if c.members < 1 || c.members > membersMax {
		all = append(all, fmt.Errorf("--members=%d: use 1 to %d, an odd number", c.members, membersMax))
	}
	if c.gateways < 1 || c.gateways > gatewaysMax {
		all = append(all, fmt.Errorf("--gateways=%d: use 1 to %d", c.gateways, gatewaysMax))
	}
	if _, err := allinone.ClientAddresses(c.clientAddr, max(c.gateways, 1)); err != nil {
		all = append(all, fmt.Errorf("--client-addr=%s: %w; use host:port", c.clientAddr, err))
	}
	if c.dataDir == "" {
		all = append(all, errors.New("--data-dir is empty: name a directory"))
	}
	if !slices.Contains([]string{"badger", "memory"}, c.engine) {
		all = append(all, fmt.Errorf("--engine=%s: use badger or memory", c.engine))
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.logLevel) {
		all = append(all, fmt.Errorf("--log-level=%s: use debug, info, warn or error", c.logLevel))
	}
	return errors.Join(all...)
}

func (c *upConfig) run(ctx context.Context, out io.Writer) error {
	addrs, err := allinone.ClientAddresses(c.clientAddr, c.gateways)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(c.dataDir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer unlock()
	run, err := c.cluster(dir, addrs)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return run(ctx) })
	g.Go(func() error {
		readyCtx, cancel := context.WithTimeout(ctx, readyMax)
		defer cancel()
		if err := announce(readyCtx, out, addrs); err != nil && ctx.Err() == nil {
			return err
		}
		return nil
	})
	return g.Wait()
}

// cluster is what to run: the shape that was asked for, on a directory that
// was not another shape's.
func (c *upConfig) cluster(dir string, addrs []string) (func(context.Context) error, error) {
	if err := c.remember(dir); err != nil {
		return nil, err
	}
	log := daemon.NewLog(c.logLevel)
	if c.split {
		return split.New(split.Config{Members: c.members, ClientAddrs: addrs, DataDir: dir, Engine: c.engine, LogLevel: c.logLevel, Log: log})
	}
	return allinone.NewUp(allinone.UpConfig{Members: c.members, ClientAddrs: addrs, DataDir: dir, Engine: c.engine, Log: log})
}

// remember keeps the shape of the cluster beside its data: members know each
// other by it, so another shape on the same data is refused.
func (c *upConfig) remember(dir string) error {
	path := filepath.Join(dir, "cluster")
	want := fmt.Sprintf("members=%d engine=%s split=%t\n", c.members, c.engine, c.split)
	got, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return os.WriteFile(path, []byte(want), 0o600)
	}
	if err != nil {
		return err
	}
	if string(got) != want {
		return fmt.Errorf("--data-dir=%s holds a cluster of another shape (%s); start with the same flags or another directory",
			dir, strings.TrimSpace(string(got)))
	}
	return nil
}

// lockDir keeps a second `up` off the same directory.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("--data-dir=%s is in use by another process", dir)
	}
	return func() { f.Close() }, nil
}

// announce says when the cluster serves, and where.
func announce(ctx context.Context, out io.Writer, addrs []string) error {
	hosts := clientHosts(addrs)
	if err := allinone.WaitReady(ctx, hosts); err != nil {
		return err
	}
	fmt.Fprintln(out, "ready to serve client requests")
	fmt.Fprintf(out, "  endpoints  %s\n", strings.Join(hosts, ","))
	fmt.Fprintf(out, "  try        ETCDCTL_API=3 etcdctl --endpoints=%s endpoint status -w table\n", strings.Join(hosts, ","))
	return nil
}

// clientHosts is addrs as a client on this machine writes them.
func clientHosts(addrs []string) []string {
	hosts := make([]string, len(addrs))
	for i, a := range addrs {
		host, port, err := net.SplitHostPort(a)
		if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
			a = net.JoinHostPort("127.0.0.1", port)
		}
		hosts[i] = a
	}
	return hosts
}

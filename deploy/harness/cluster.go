package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// readyLine is what every Quartet process that serves clients says, once, when
// a linearizable read works.
const readyLine = "ready to serve client requests"

// readyWithin bounds a start, whatever the caller's context allows.
const readyWithin = 60 * time.Second

// Options say what to start. The zero value of every field but Kind and Binaries
// means its default.
type Options struct {
	Kind     Kind
	Binaries *Binaries
	Members  int      // 3
	Gateways int      // up and split: as many as members
	Engine   string   // Quartet: badger
	Dir      string   // data and logs, kept; default a temporary one, removed by Close
	Args     []string // appended to the command line of every main process
}

func (o *Options) setDefaults() {
	if o.Members == 0 {
		o.Members = 3
	}
	if o.Gateways == 0 {
		o.Gateways = o.Members
	}
	if o.Engine == "" {
		o.Engine = "badger"
	}
}

// Cluster is a running cluster. Its methods are safe for concurrent use, except
// that Halt, Launch and Close are called by one goroutine at a time.
type Cluster struct {
	opts    Options
	program string
	dir     string
	own     bool // dir is ours to remove
	members []Member
	main    []string // processes that we start, in order
	daemons []string // split: processes that the supervisor started
	starter *starter

	mu struct {
		sync.Mutex
		procs map[string]*process
	}
}

// Start starts a cluster and waits until it serves. On error nothing is left
// running, and the error holds the end of every log. It wraps ErrUnavailable if
// the program for the kind cannot be had.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	opts.setDefaults()
	program, err := opts.Binaries.Of(ctx, opts.Kind)
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: opts, program: program, dir: opts.Dir, starter: newStarter()}
	c.mu.procs = map[string]*process{}
	if c.dir == "" {
		c.own = true
		if c.dir, err = os.MkdirTemp("", "cluster-"+string(opts.Kind)+"-"); err != nil {
			return nil, err
		}
	}
	if err := c.plan(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.Launch(ctx); err != nil {
		logs := c.LogTails(30)
		return nil, errors.Join(fmt.Errorf("start %s: %w\n%s", opts.Kind, err, logs), c.Close())
	}
	return c, nil
}

// Launch starts all processes, on what is in the data directory, and waits until
// the cluster serves. Start does it; after Halt it is the restart of everything.
func (c *Cluster) Launch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	from := map[string]int64{}
	for _, name := range c.main {
		from[name] = logSize(filepath.Join(c.dir, name+".log"))
		if err := c.Restart(name); err != nil {
			return err
		}
	}
	if c.opts.Kind.Quartet() {
		if err := c.waitReadyLines(ctx, from); err != nil {
			return err
		}
	}
	if c.opts.Kind == Split {
		if err := c.waitAdopt(ctx); err != nil {
			return err
		}
	}
	return c.WaitReady(ctx)
}

func (c *Cluster) waitReadyLines(ctx context.Context, from map[string]int64) error {
	for _, name := range c.main {
		p := c.process(name)
		err := waitFor(ctx, readyLine+" of "+name, func() (bool, error) {
			text, err := os.ReadFile(p.LogPath)
			if err != nil {
				return false, err
			}
			if bytes.Contains(text[min(from[name], int64(len(text))):], []byte(readyLine)) {
				return true, nil
			}
			return false, c.checkRunning()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// WaitReady waits until every endpoint answers a linearizable read.
func (c *Cluster) WaitReady(ctx context.Context) error {
	for _, m := range c.members {
		if err := c.waitServes(ctx, m.Endpoint); err != nil {
			return err
		}
	}
	return nil
}

// checkRunning returns an error if a main process has ended.
func (c *Cluster) checkRunning() error {
	for _, name := range c.main {
		if !c.process(name).running() {
			return fmt.Errorf("process %s ended", name)
		}
	}
	return nil
}

func (c *Cluster) process(name string) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.procs[name]
}

// Kind returns the kind of the cluster.
func (c *Cluster) Kind() Kind { return c.opts.Kind }

// Dir returns the directory of data and logs.
func (c *Cluster) Dir() string { return c.dir }

// Members returns the members in order.
func (c *Cluster) Members() []Member { return c.members }

// Endpoints returns host:port of everything that serves clients.
func (c *Cluster) Endpoints() []string {
	var eps []string
	for _, m := range c.members {
		eps = append(eps, m.Endpoint)
	}
	return eps
}

// Processes returns the processes that run now: ours, then split's daemons.
func (c *Cluster) Processes() []Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ps []Process
	for _, name := range append(append([]string{}, c.main...), c.daemons...) {
		if p := c.mu.procs[name]; p.running() {
			ps = append(ps, p.Process)
		}
	}
	return ps
}

// Kill ends the named process at once (SIGKILL) and waits for its end.
func (c *Cluster) Kill(ctx context.Context, name string) error {
	return c.end(ctx, name, syscall.SIGKILL)
}

// Terminate asks the named process to stop (SIGTERM) and waits for its end.
func (c *Cluster) Terminate(ctx context.Context, name string) error {
	return c.end(ctx, name, syscall.SIGTERM)
}

func (c *Cluster) end(ctx context.Context, name string, sig syscall.Signal) error {
	p := c.process(name)
	if p == nil {
		return fmt.Errorf("no process %q", name)
	}
	if err := p.signal(sig); err != nil {
		return err
	}
	return p.waitExit(ctx)
}

// Pause stops the named process where it stands (SIGSTOP) until Resume. It
// returns when every thread has stopped, so that nothing is answered after it.
func (c *Cluster) Pause(name string) error {
	if err := c.send(name, syscall.SIGSTOP); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), exitWithin)
	defer cancel()
	pid := c.process(name).PID
	return waitFor(ctx, "stop of process "+name, func() (bool, error) { return pidStopped(pid), nil })
}

// Resume lets a paused process go on.
func (c *Cluster) Resume(name string) error { return c.send(name, syscall.SIGCONT) }

func (c *Cluster) send(name string, sig syscall.Signal) error {
	p := c.process(name)
	if p == nil {
		return fmt.Errorf("no process %q", name)
	}
	return p.signal(sig)
}

// Restart starts a process that has ended again, by its own command line. It
// does not wait for it to be ready.
func (c *Cluster) Restart(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.mu.procs[name]
	if old == nil {
		return fmt.Errorf("no process %q", name)
	}
	if old.running() {
		return fmt.Errorf("restart: process %s still runs", name)
	}
	p := &process{Process: Process{Name: name, Address: old.Address}, argv: old.argv}
	if err := c.starter.start(p, c.dir); err != nil {
		return err
	}
	c.mu.procs[name] = p
	return nil
}

// Halt stops everything as an operator would (SIGTERM to the main processes and
// to daemons that were restarted by hand) and keeps the data.
func (c *Cluster) Halt(ctx context.Context) error {
	var errs []error
	for _, name := range append(append([]string{}, c.main...), c.daemons...) {
		if p := c.process(name); p.done != nil && p.running() {
			errs = append(errs, p.signal(syscall.SIGTERM))
		}
	}
	for _, p := range c.Processes() {
		errs = append(errs, c.process(p.Name).waitExit(ctx))
	}
	return errors.Join(errs...)
}

// Close kills everything and removes the directory if Start made it.
func (c *Cluster) Close() error {
	var errs []error
	ctx := context.Background()                        // bounded by exitWithin
	for _, p := range slices.Backward(c.Processes()) { // the supervisor, which ends its children, last
		if err := c.Kill(ctx, p.Name); !errors.Is(err, errNotRunning) {
			errs = append(errs, err)
		}
	}
	c.starter.close()
	if c.own && os.Getenv("HARNESS_KEEP") == "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

// logLineMax is how much of a line LogTails shows.
const logLineMax = 300

// LogTails returns the last n lines of every log.
func (c *Cluster) LogTails(n int) string {
	var b strings.Builder
	logs, _ := filepath.Glob(filepath.Join(c.dir, "*.log"))
	more, _ := filepath.Glob(filepath.Join(c.dataDir(supervisor), "logs", "*.log"))
	for _, path := range append(logs, more...) {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fmt.Fprintf(&b, "--- %s\n%s\n", filepath.Base(path), cutLines(lastLines(string(text), n), logLineMax))
	}
	return b.String()
}

func logSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

package bench

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/quartet-kv/quartet/deploy/harness"
)

const dialWithin = 5 * time.Second

// Where connections go.
const (
	atAll    = "all"
	atLeader = "leader"
)

// Config is what to measure, and how hard.
type Config struct {
	Endpoints []string       // a cluster that runs already
	Targets   []harness.Kind // clusters to start
	Members   int            // of each started cluster
	Engine    string         // of Quartet
	Workloads []string       // names of workloads, in order
	At        string         // atAll or atLeader

	Conns, Clients int           // connections, and callers that share them
	Total          int           // operations per round; 0: only Duration counts
	Duration       time.Duration // of a round; 0: only Total counts
	Rounds         int           // of each workload on each target
	Keys           int           // keys that reads and ranges work on
	KeySize        int           // bytes
	ValueSize      int           // bytes
	Watchers       int           // of the watch workload

	Quartet, Oracle string // programs to use; empty: built from source
	targets         string
}

// DefaultConfig is a load that two cores bear: a minute for all workloads of one
// target.
func DefaultConfig() Config {
	return Config{
		Members: 3, Engine: "badger", Workloads: workloadNames(), At: atAll,
		Conns: 100, Clients: 1000, Total: 20000, Duration: 30 * time.Second, Rounds: 1,
		Keys: 10000, KeySize: 8, ValueSize: 256, Watchers: 1000,
	}
}

// AddFlags declares every field as a flag.
func (c *Config) AddFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&c.Endpoints, "endpoints", c.Endpoints, "client addresses of a running cluster")
	f.StringVar(&c.targets, "targets", c.targets, "clusters to start and measure in turn: up, compact, split, etcd37, etcd34")
	f.IntVar(&c.Members, "members", c.Members, "members of each started cluster")
	f.StringVar(&c.Engine, "engine", c.Engine, "engine of Quartet's stores")
	f.StringSliceVar(&c.Workloads, "workloads", c.Workloads, "what to measure, in order")
	f.StringVar(&c.At, "at", c.At, "where connections go: all endpoints in turn, or the leader")
	f.IntVar(&c.Conns, "conns", c.Conns, "connections")
	f.IntVar(&c.Clients, "clients", c.Clients, "callers, which share the connections")
	f.IntVar(&c.Total, "total", c.Total, "operations per round (0: until --duration is over)")
	f.DurationVar(&c.Duration, "duration", c.Duration, "longest time of a round (0: until --total is done)")
	f.IntVar(&c.Rounds, "rounds", c.Rounds, "rounds of each workload; the median is reported")
	f.IntVar(&c.Keys, "keys", c.Keys, "keys that reads work on")
	f.IntVar(&c.KeySize, "key-size", c.KeySize, "bytes of a key")
	f.IntVar(&c.ValueSize, "value-size", c.ValueSize, "bytes of a value")
	f.IntVar(&c.Watchers, "watchers", c.Watchers, "watchers of the watch workload")
	f.StringVar(&c.Quartet, "quartet-binary", c.Quartet, "quartet program to start (default: this one)")
	f.StringVar(&c.Oracle, "etcd37-binary", c.Oracle, "etcd 3.7 program to start (default: built from deploy/oracle, which needs the source tree)")
}

// Validate reports every violation at once, and reads the list of targets.
func (c *Config) Validate() error {
	var errs []error
	if c.targets != "" {
		kinds, err := harness.ParseKinds(c.targets)
		if err != nil {
			errs = append(errs, fmt.Errorf("--targets: %w", err))
		}
		c.Targets = kinds
	}
	if len(c.Endpoints) == 0 && len(c.Targets) == 0 {
		errs = append(errs, errors.New("nothing to measure: give --endpoints of a running cluster or --targets to start"))
	}
	for _, w := range c.Workloads {
		if _, ok := workloads[w]; !ok {
			errs = append(errs, fmt.Errorf("--workloads %q: unknown; one of %s", w, strings.Join(workloadNames(), ", ")))
		}
	}
	if !slices.Contains([]string{atAll, atLeader}, c.At) {
		errs = append(errs, fmt.Errorf("--at %q: give %s or %s", c.At, atAll, atLeader))
	}
	for _, least := range []struct {
		flag     string
		got, min int
	}{
		{"members", c.Members, 1}, {"conns", c.Conns, 1}, {"clients", c.Clients, 1}, {"rounds", c.Rounds, 1},
		{"keys", c.Keys, 1}, {"key-size", c.KeySize, 8}, {"value-size", c.ValueSize, 16}, {"watchers", c.Watchers, 1},
	} {
		if least.got < least.min {
			errs = append(errs, fmt.Errorf("--%s %d: give at least %d", least.flag, least.got, least.min))
		}
	}
	if c.Total <= 0 && c.Duration <= 0 {
		errs = append(errs, errors.New("--total and --duration are both 0: give one, or it never ends"))
	}
	return errors.Join(errs...)
}

package stored

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Config of a store. The zero value is not usable; see DefaultConfig.
type Config struct {
	// Name is the stable name that consensusd knows the store by; empty is the
	// data directory's.
	Name string
	// DataDir holds everything; a store owns it alone. Not used by the memory
	// engine.
	DataDir string
	// Engine is badger or memory. The memory engine forgets everything at a
	// stop and is for tests.
	Engine string
	// EngineProfile is how much memory the engine may take: default, or small
	// for many stores in one process.
	EngineProfile string
	// MemberConsensus are addresses of consensusd: the own member's first, then
	// those to follow while that one does not answer.
	MemberConsensus []string
	// NATS is the URL of the bus that the store publishes on while it is told
	// to; empty is none. Deps.Bus goes before it.
	NATS string

	// KeyspaceBytes bounds the present generation of keys in memory; beyond it
	// answers stay right and get slower.
	KeyspaceBytes int64
	// SyncInterval and SyncBytes bound what a power cut makes the store replay.
	SyncInterval time.Duration
	SyncBytes    int64
	// BatchBytesMax bounds the rows that gather while the engine commits.
	BatchBytesMax int
	// OutcomeBytesMax bounds the outcomes that wait for their gateways.
	OutcomeBytesMax int
	// RingBytesMax bounds the recent batches that followers can have.
	RingBytesMax int
}

// Engines that can be chosen.
const (
	EngineBadger = "badger"
	EngineMemory = "memory"

	ProfileDefault = "default"
	ProfileSmall   = "small"
)

// DefaultConfig returns a Config that lacks DataDir and MemberConsensus.
func DefaultConfig() Config {
	return Config{
		Engine:          EngineBadger,
		EngineProfile:   ProfileDefault,
		KeyspaceBytes:   256 << 20,
		SyncInterval:    5 * time.Second,
		SyncBytes:       64 << 20,
		BatchBytesMax:   16 << 20,
		OutcomeBytesMax: 64 << 20,
		RingBytesMax:    32 << 20,
	}
}

// AddFlags adds a flag per field.
func (c *Config) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&c.Name, "name", c.Name, "stable name of the store; empty is the data directory")
	fs.StringVar(&c.DataDir, "data-dir", c.DataDir, "directory that the store owns")
	fs.StringVar(&c.Engine, "engine", c.Engine, "storage engine: badger, or memory (which forgets everything at a stop)")
	fs.StringVar(&c.EngineProfile, "engine-profile", c.EngineProfile, "memory of the engine: default, or small for many stores in one process")
	fs.StringSliceVar(&c.MemberConsensus, "member-consensus", c.MemberConsensus, "addresses of consensusd, the own member's first, then those to follow while it does not answer")
	fs.StringVar(&c.NATS, "nats", c.NATS, "URL of the NATS server to publish on; empty is none, and gateways follow the store instead")
	fs.Int64Var(&c.KeyspaceBytes, "keyspace-bytes", c.KeyspaceBytes, "memory for the present generation of keys")
	fs.DurationVar(&c.SyncInterval, "sync-interval", c.SyncInterval, "longest time between syncs of the engine")
	fs.Int64Var(&c.SyncBytes, "sync-bytes", c.SyncBytes, "most bytes between syncs of the engine")
	fs.IntVar(&c.BatchBytesMax, "batch-bytes-max", c.BatchBytesMax, "most bytes that gather while the engine commits")
	fs.IntVar(&c.OutcomeBytesMax, "outcome-bytes-max", c.OutcomeBytesMax, "memory for outcomes that wait for their gateways")
	fs.IntVar(&c.RingBytesMax, "ring-bytes-max", c.RingBytesMax, "memory for recent batches that followers can have")
}

// Validate reports every violation at once.
func (c *Config) Validate() error {
	var all []error
	bad := func(flag string, value any, remedy string) {
		all = append(all, fmt.Errorf("--%s=%v: %s", flag, value, remedy))
	}
	switch c.Engine {
	case EngineBadger:
		if c.DataDir == "" {
			bad("data-dir", c.DataDir, "name a directory for the store to own")
		}
	case EngineMemory:
	default:
		bad("engine", c.Engine, "choose badger or memory")
	}
	if c.EngineProfile != ProfileDefault && c.EngineProfile != ProfileSmall {
		bad("engine-profile", c.EngineProfile, "choose default or small")
	}
	if len(c.MemberConsensus) == 0 || strings.TrimSpace(c.MemberConsensus[0]) == "" {
		bad("member-consensus", c.MemberConsensus, "name the address of the member's consensusd")
	}
	if c.SyncInterval <= 0 {
		bad("sync-interval", c.SyncInterval, "must be above zero, for instance 5s")
	}
	for _, limit := range []struct {
		flag  string
		value int64
		least int64
	}{
		{"keyspace-bytes", c.KeyspaceBytes, 1 << 20},
		{"sync-bytes", c.SyncBytes, 1 << 20},
		{"batch-bytes-max", int64(c.BatchBytesMax), 1 << 20},
		{"outcome-bytes-max", int64(c.OutcomeBytesMax), 1 << 20},
		{"ring-bytes-max", int64(c.RingBytesMax), 1 << 20},
	} {
		if limit.value < limit.least {
			bad(limit.flag, limit.value, fmt.Sprintf("must be at least %d", limit.least))
		}
	}
	return errors.Join(all...)
}

// name is the stable name of the store.
func (c *Config) name() string {
	switch {
	case c.Name != "":
		return c.Name
	case c.DataDir != "":
		return c.DataDir
	default:
		return "stored"
	}
}

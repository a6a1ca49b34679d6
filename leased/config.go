package leased

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"
)

// Config of a leased.
type Config struct {
	// Consensus and Store are the addresses of the own member's daemons.
	Consensus, Store string
	// Seeds are addresses of other members' consensusd. The own one is enough
	// while it answers.
	Seeds []string
	// Grace is added to every lease's time when this lessor becomes primary; it
	// also bounds the age of the read index that a renewal is answered by. About
	// an election timeout.
	Grace time.Duration
	// SilenceMax is how long the primary lessor may be silent before this one
	// claims its place.
	SilenceMax time.Duration
	// ProbeInterval is how often the primary lessor is asked whether it is one.
	ProbeInterval time.Duration
	// FeedLossMax is how long this lessor stays primary without its store.
	FeedLossMax time.Duration
}

// identifyMax bounds the question for the own member's id.
const identifyMax = 2 * time.Second

// DefaultConfig is a Config with every limit set and nothing else.
func DefaultConfig() Config {
	return Config{
		Grace:         time.Second,
		SilenceMax:    time.Second,
		ProbeInterval: 200 * time.Millisecond,
		FeedLossMax:   2 * time.Second,
	}
}

// AddFlags adds a flag for each field.
func (c *Config) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&c.Consensus, "consensus", c.Consensus, "address of the own member's consensusd")
	fs.StringVar(&c.Store, "store", c.Store, "address of the own member's store")
	fs.StringSliceVar(&c.Seeds, "seed", c.Seeds, "addresses of other members' consensusd")
	fs.DurationVar(&c.Grace, "grace", c.Grace, "added to every lease's time on becoming primary; about an election timeout")
	fs.DurationVar(&c.SilenceMax, "silence-max", c.SilenceMax, "silence of the primary lessor after which this one claims")
	fs.DurationVar(&c.ProbeInterval, "probe-interval", c.ProbeInterval, "how often the primary lessor is asked whether it is one")
	fs.DurationVar(&c.FeedLossMax, "feed-loss-max", c.FeedLossMax, "how long to stay primary without the own store")
}

// Validate reports every violation at once.
func (c *Config) Validate() error {
	var all []error
	bad := func(format string, args ...any) { all = append(all, fmt.Errorf(format, args...)) }
	if c.Consensus == "" {
		bad("--consensus is empty: give the address of the own member's consensusd")
	}
	if c.Store == "" {
		bad("--store is empty: give the address of the own member's store")
	}
	if c.Grace < 10*time.Millisecond || c.Grace > time.Minute {
		bad("--grace=%v: must be 10ms to 1m; an election timeout is usual", c.Grace)
	}
	if c.ProbeInterval < 10*time.Millisecond {
		bad("--probe-interval=%v: must be at least 10ms; 200ms is usual", c.ProbeInterval)
	}
	if c.SilenceMax < 2*c.ProbeInterval {
		bad("--silence-max=%v: must be at least twice --probe-interval=%v, or one late answer makes a claim", c.SilenceMax, c.ProbeInterval)
	}
	if c.FeedLossMax < 0 {
		bad("--feed-loss-max=%v: must not be negative; 2s is usual", c.FeedLossMax)
	}
	return errors.Join(all...)
}

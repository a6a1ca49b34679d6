package gatewayd

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"time"

	"github.com/spf13/pflag"
)

// Config is the configuration of a gateway. DefaultConfig has the defaults.
type Config struct {
	// ClientListen are the addresses (host:port or unix:path) that clients
	// connect to.
	ClientListen []string
	// AdvertiseClientURLs are how clients reach the gateway, as told in member
	// lists; empty is made of ClientListen.
	AdvertiseClientURLs []string
	// Consensus are addresses of members' consensusd; one that answers is
	// enough to find the others.
	Consensus []string
	// Name is the stable name of this gateway, unlike that of any other; empty
	// is made of the host's name and the first listening address.
	Name string
	// Member is the member, by name or id in hex, that the gateway speaks for;
	// empty is the one that the fewest gateways speak for.
	Member string
	// NATS is the URL of the bus; empty asks a store instead.
	NATS string

	// RequestBytesMax bounds an encoded command; a message may be 512 KiB
	// larger.
	RequestBytesMax int
	// TxnOpsMax bounds compares, and operations of each branch, of a
	// transaction with all that is nested in it.
	TxnOpsMax int
	// ConcurrentStreamsMax bounds the calls of one client connection that are
	// under way.
	ConcurrentStreamsMax uint32

	// ElectionTimeout is that of consensusd. It sets the least TTL of a lease,
	// and how long a leader may be missing before streams that require one end.
	ElectionTimeout time.Duration
	// RequestTimeout bounds a request; 0 is 5 s and two election timeouts.
	RequestTimeout time.Duration
	// WatchProgressInterval is the time between progress notifications.
	WatchProgressInterval time.Duration
	// WatchRingBytesMax bounds the recent events kept in memory for watchers.
	WatchRingBytesMax int
}

// DefaultConfig returns etcd's defaults.
func DefaultConfig() Config {
	return Config{
		ClientListen:          []string{"127.0.0.1:2379"},
		RequestBytesMax:       1536 << 10,
		TxnOpsMax:             128,
		ConcurrentStreamsMax:  math.MaxUint32,
		ElectionTimeout:       time.Second,
		WatchProgressInterval: 10 * time.Minute,
		WatchRingBytesMax:     64 << 20,
	}
}

// AddFlags implements daemon.Config; the defaults are what c holds.
func (c *Config) AddFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&c.ClientListen, "client-listen", c.ClientListen, "addresses for clients (host:port or unix:path)")
	fs.StringSliceVar(&c.AdvertiseClientURLs, "advertise-client-urls", c.AdvertiseClientURLs, "URLs where clients reach this gateway (default made of --client-listen)")
	fs.StringSliceVar(&c.Consensus, "consensus", c.Consensus, "addresses of members' consensusd; one that answers is enough")
	fs.StringVar(&c.Name, "name", c.Name, "stable name of this gateway (default made of host name and --client-listen)")
	fs.StringVar(&c.Member, "member", c.Member, "member to speak for, by name or id (default the one that the fewest gateways speak for)")
	fs.StringVar(&c.NATS, "nats", c.NATS, "URL of the NATS server that stores publish on; empty follows a store instead")
	fs.IntVar(&c.RequestBytesMax, "max-request-bytes", c.RequestBytesMax, "largest request, encoded")
	fs.IntVar(&c.TxnOpsMax, "max-txn-ops", c.TxnOpsMax, "most operations in a transaction")
	fs.Uint32Var(&c.ConcurrentStreamsMax, "max-concurrent-streams", c.ConcurrentStreamsMax, "most calls under way on one connection")
	fs.DurationVar(&c.ElectionTimeout, "election-timeout", c.ElectionTimeout, "election timeout of consensusd")
	fs.DurationVar(&c.RequestTimeout, "request-timeout", c.RequestTimeout, "longest time for a request (default 5s and two election timeouts)")
	fs.DurationVar(&c.WatchProgressInterval, "watch-progress-notify-interval", c.WatchProgressInterval, "time between progress notifications of a watch")
	fs.IntVar(&c.WatchRingBytesMax, "watch-ring-bytes", c.WatchRingBytesMax, "memory for recent events")
}

// Validate implements daemon.Config.
func (c *Config) Validate() error {
	var all []error
	refuse := func(flag string, value any, remedy string) {
		all = append(all, fmt.Errorf("--%s=%v: %s", flag, value, remedy))
	}
	if len(c.ClientListen) == 0 {
		refuse("client-listen", "", "give an address such as 127.0.0.1:2379")
	}
	if len(c.Consensus) == 0 {
		refuse("consensus", "", "give the address of at least one consensusd")
	}
	for _, u := range c.AdvertiseClientURLs {
		if !isClientURL(u) {
			refuse("advertise-client-urls", u, "not a URL; use http://host:port")
		}
	}
	for _, limit := range []struct {
		flag  string
		value int64
		least int64
	}{
		{"max-request-bytes", int64(c.RequestBytesMax), 1},
		{"max-txn-ops", int64(c.TxnOpsMax), 1},
		{"max-concurrent-streams", int64(c.ConcurrentStreamsMax), 1},
		{"watch-ring-bytes", int64(c.WatchRingBytesMax), 0},
		{"election-timeout", int64(c.ElectionTimeout), int64(10 * time.Millisecond)},
		{"request-timeout", int64(c.RequestTimeout), 0},
		{"watch-progress-notify-interval", int64(c.WatchProgressInterval), int64(100 * time.Millisecond)},
	} {
		if limit.value < limit.least {
			refuse(limit.flag, limit.value, fmt.Sprintf("use at least %d", limit.least))
		}
	}
	if c.RequestBytesMax > requestBytesCeiling {
		refuse("max-request-bytes", c.RequestBytesMax, fmt.Sprintf("use at most %d", requestBytesCeiling))
	}
	return errors.Join(all...)
}

// requestBytesCeiling leaves a command room in a message between daemons.
const requestBytesCeiling = 32 << 20

func isClientURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	switch u.Scheme {
	case "http", "https":
		_, _, err := net.SplitHostPort(u.Host)
		return err == nil
	case "unix", "unixs":
		return true
	}
	return false
}

func (c Config) requestTimeout() time.Duration {
	if c.RequestTimeout > 0 {
		return c.RequestTimeout
	}
	return 5*time.Second + 2*c.ElectionTimeout
}

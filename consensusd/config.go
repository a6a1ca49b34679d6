package consensusd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/quartet-kv/quartet/consensusd/internal/membership"
	"github.com/quartet-kv/quartet/proto/consensuspb"
)

// Member is one row of the configured membership.
type Member struct {
	Name string
	// PeerURLs are what the member is known by: its id is made from them. The
	// first one is where its peers reach its consensusd. One without a scheme is
	// an address as it stands, such as a name of an in-process fabric.
	PeerURLs []string
	// Addresses of the member's daemons, for those who ask Observe. Consensus is
	// the peer address if empty.
	Consensus, Store, Lease string
}

// Config of a consensusd.
type Config struct {
	// Name is this member's, one of Members.
	Name string
	// DataDir holds the log; it is made if missing.
	DataDir string
	// Members is the whole first membership, the same on every member. When the
	// log exists already, only the addresses in it count, and the identity that it
	// gives must be the log's.
	Members []Member
	// ClusterToken keeps clusters with the same peer URLs apart.
	ClusterToken string
	// HeartbeatInterval is how often a leader is heard at least.
	HeartbeatInterval time.Duration
	// ElectionTimeout is how long a follower listens before it takes the leader
	// for gone; up to twice that, by chance.
	ElectionTimeout time.Duration

	// PayloadBytesMax is the largest payload of one entry.
	PayloadBytesMax int
	// UncommittedBytesMax bounds what a leader takes beyond what is committed.
	UncommittedBytesMax int64
	// InflightBytesMax bounds what is sent to a peer and not acknowledged.
	InflightBytesMax int64
	// LogBytesMax is the hard cap of the log: beyond it proposals are refused until
	// every member's store has synced enough to truncate. What was taken before may
	// exceed it by UncommittedBytesMax.
	LogBytesMax int64
	// LogTailEntries and LogTailBytes, whichever is less, are kept below what every
	// store has synced. A start reads the whole log.
	LogTailEntries int64
	LogTailBytes   int64
	// SegmentBytes is the size of one file of the log.
	SegmentBytes int64
}

// Fixed limits.
const (
	appendBytesMax      = 1 << 20 // of one append message to a peer; one entry may be larger
	inflightMessagesMax = 512
	tickMin             = time.Millisecond
	electionTicksMin    = 5
	electionTicksMax    = 1000
)

// DefaultConfig is a Config with every limit set and nothing else.
func DefaultConfig() Config {
	return Config{
		Name:                "default",
		DataDir:             "./quartet-data/consensus",
		ClusterToken:        "etcd-cluster",
		HeartbeatInterval:   100 * time.Millisecond,
		ElectionTimeout:     1000 * time.Millisecond,
		PayloadBytesMax:     32 << 20,
		UncommittedBytesMax: 256 << 20,
		InflightBytesMax:    32 << 20,
		LogBytesMax:         8 << 30,
		LogTailEntries:      10_000,
		LogTailBytes:        128 << 20,
		SegmentBytes:        64 << 20,
	}
}

// AddFlags adds a flag for each field.
func (c *Config) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&c.Name, "name", c.Name, "name of this member, one of those given by --member")
	fs.StringVar(&c.DataDir, "data-dir", c.DataDir, "directory of the log")
	fs.Var((*memberFlag)(&c.Members), "member", "one member: name=NAME,peer=URL[,peer=URL...][,consensus=ADDR][,store=ADDR][,lease=ADDR]; repeated for each")
	fs.StringVar(&c.ClusterToken, "cluster-token", c.ClusterToken, "keeps clusters with the same peer URLs apart")
	fs.Var((*millis)(&c.HeartbeatInterval), "heartbeat-interval", "milliseconds between heartbeats of a leader")
	fs.Var((*millis)(&c.ElectionTimeout), "election-timeout", "milliseconds without a leader before an election")
	fs.IntVar(&c.PayloadBytesMax, "payload-bytes-max", c.PayloadBytesMax, "largest payload of one log entry")
	fs.Int64Var(&c.UncommittedBytesMax, "uncommitted-bytes-max", c.UncommittedBytesMax, "bytes that a leader takes beyond what is committed")
	fs.Int64Var(&c.InflightBytesMax, "inflight-bytes-max", c.InflightBytesMax, "bytes sent to a peer and not acknowledged")
	fs.Int64Var(&c.LogBytesMax, "log-bytes-max", c.LogBytesMax, "hard cap of the log; beyond it proposals are refused")
	fs.Int64Var(&c.LogTailEntries, "log-tail-entries", c.LogTailEntries, "entries kept below what every store has synced")
	fs.Int64Var(&c.LogTailBytes, "log-tail-bytes", c.LogTailBytes, "bytes kept below what every store has synced")
	fs.Int64Var(&c.SegmentBytes, "segment-bytes", c.SegmentBytes, "size of one file of the log")
}

// Validate reports every violation at once.
func (c *Config) Validate() error {
	var all []error
	bad := func(format string, args ...any) { all = append(all, fmt.Errorf(format, args...)) }
	if c.DataDir == "" {
		bad("--data-dir is empty: name a directory on a disk that survives this process")
	}
	if c.HeartbeatInterval < tickMin {
		bad("--heartbeat-interval=%v: must be at least %v; 100 is usual", c.HeartbeatInterval, tickMin)
	} else if ticks := c.ElectionTimeout / c.HeartbeatInterval; ticks < electionTicksMin || ticks > electionTicksMax {
		bad("--election-timeout=%v: must be %d to %d times --heartbeat-interval=%v; 10 times is usual",
			c.ElectionTimeout, electionTicksMin, electionTicksMax, c.HeartbeatInterval)
	}
	if c.PayloadBytesMax < 1<<10 || c.PayloadBytesMax > 48<<20 {
		bad("--payload-bytes-max=%d: must be 1 KiB to 48 MiB", c.PayloadBytesMax)
	}
	if c.UncommittedBytesMax < appendBytesMax {
		bad("--uncommitted-bytes-max=%d: must be at least %d", c.UncommittedBytesMax, appendBytesMax)
	}
	if c.InflightBytesMax < appendBytesMax {
		bad("--inflight-bytes-max=%d: must be at least %d", c.InflightBytesMax, appendBytesMax)
	}
	if c.SegmentBytes < 1<<20 {
		bad("--segment-bytes=%d: must be at least 1 MiB", c.SegmentBytes)
	}
	if c.LogBytesMax < 4*c.SegmentBytes {
		bad("--log-bytes-max=%d: must be at least 4 segments of %d", c.LogBytesMax, c.SegmentBytes)
	}
	if c.LogTailBytes < 0 || c.LogTailBytes > c.LogBytesMax/4 {
		bad("--log-tail-bytes=%d: must be 0 to a quarter of --log-bytes-max=%d", c.LogTailBytes, c.LogBytesMax)
	}
	if c.LogTailEntries < 0 {
		bad("--log-tail-entries=%d: must not be negative", c.LogTailEntries)
	}
	if _, _, err := c.resolve(); err != nil {
		bad("--member: %w", err)
	}
	return errors.Join(all...)
}

// resolve gives members their ids, and this member's identity.
func (c *Config) resolve() (membership.List, membership.Identity, error) {
	static := membership.Static{Token: c.ClusterToken}
	for _, m := range c.Members {
		row := &consensuspb.Member{
			Name: m.Name, PeerUrls: m.PeerURLs,
			ConsensusAddress: m.Consensus, StoreAddress: m.Store, LeaseAddress: m.Lease,
		}
		if row.ConsensusAddress == "" {
			row.ConsensusAddress, _ = membership.PeerAddress(row) // reported by Resolve
		}
		static.Members = append(static.Members, row)
	}
	id, err := static.Resolve(c.Name)
	return static.Members, id, err
}

// memberFlag is the repeated --member.
type memberFlag []Member

func (f *memberFlag) String() string {
	var names []string
	for _, m := range *f {
		names = append(names, m.Name)
	}
	return strings.Join(names, ",")
}

func (f *memberFlag) Type() string { return "member" }

func (f *memberFlag) Set(s string) error {
	var m Member
	for field := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(field, "=")
		if !ok || value == "" {
			return fmt.Errorf("%q is not key=value", field)
		}
		switch key {
		case "name":
			m.Name = value
		case "peer":
			m.PeerURLs = append(m.PeerURLs, value)
		case "consensus":
			m.Consensus = value
		case "store":
			m.Store = value
		case "lease":
			m.Lease = value
		default:
			return fmt.Errorf("unknown key %q; name, peer, consensus, store and lease are known", key)
		}
	}
	if m.Name == "" || len(m.PeerURLs) == 0 {
		return fmt.Errorf("%q needs name and peer", s)
	}
	*f = append(*f, m)
	return nil
}

// millis is a duration given as a number of milliseconds, as etcd's flags are.
type millis time.Duration

func (d *millis) String() string { return strconv.FormatInt(time.Duration(*d).Milliseconds(), 10) }
func (d *millis) Type() string   { return "milliseconds" }

func (d *millis) Set(s string) error {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return fmt.Errorf("%q is not a number of milliseconds", s)
	}
	*d = millis(time.Duration(n) * time.Millisecond)
	return nil
}

// Package etcdflags reads etcd's own command line, so that `quartet member`
// can stand where etcd stood: the same flags in both spellings, the same
// ETCD_* environment, the same defaults and the same complaints.
//
// Every flag of etcd is known here. It is used, or ignored and said so in the
// log, or refused when a user would rely on something that Quartet does not do
// yet (a certificate that nobody checks is worse than an error).
package etcdflags

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Config is what `quartet member` uses of etcd's flags.
type Config struct {
	Name          string
	DataDir       string
	ListenClient  []string // host:port or unix:path
	AdvertiseURLs []string // as given
	ListenPeer    []string
	AdvertisePeer []string // URLs
	Members       []Member
	Token         string
	Heartbeat     time.Duration
	Election      time.Duration
	RequestBytes  int
	TxnOps        int
	Progress      time.Duration
	LogLevel      string
	ListenMetrics []string
	WithoutEffect []string // "--flag=value", for the log
	values        map[string]string
}

// Member is one row of --initial-cluster.
type Member struct {
	Name     string
	PeerURLs []string
}

// Flags registers every flag of etcd on fs.
type Flags struct{ fs *pflag.FlagSet }

// Register adds etcd's flags to fs and returns what reads them later.
func Register(fs *pflag.FlagSet) *Flags {
	for _, f := range table {
		usage := map[kind]string{used: usages[f.name], ignored: "without effect in Quartet", refused: "not supported yet"}[f.kind]
		if f.boolean {
			fs.Bool(f.name, f.value == "true", usage)
		} else {
			fs.String(f.name, f.value, usage)
		}
		if f.kind != used {
			_ = fs.MarkHidden(f.name)
		}
	}
	return &Flags{fs}
}

var usages = map[string]string{
	"name":                           "name of this member",
	"data-dir":                       "data directory; <name>.etcd when empty",
	"listen-client-urls":             "URLs to listen on for clients",
	"advertise-client-urls":          "URLs that clients are told of",
	"listen-peer-urls":               "URLs to listen on for the other members",
	"initial-advertise-peer-urls":    "URLs that the other members reach this one at",
	"initial-cluster":                "name=URL of every member, comma-separated",
	"initial-cluster-state":          "new or existing",
	"initial-cluster-token":          "token that tells clusters apart",
	"heartbeat-interval":             "milliseconds between heartbeats",
	"election-timeout":               "milliseconds without a leader before an election",
	"max-request-bytes":              "largest request",
	"max-txn-ops":                    "most operations in a transaction",
	"watch-progress-notify-interval": "time between progress notifications",
	"log-level":                      "debug, info, warn or error",
	"listen-metrics-urls":            "URLs to serve /metrics on",
	"version":                        "print the version and exit",
}

// Config reads the flags and their ETCD_* twins in environ (as os.Environ
// gives it). It returns every violation at once.
func (f *Flags) Config(environ []string) (Config, error) {
	c := Config{values: make(map[string]string)}
	problems := f.environment(environ)
	for _, row := range table {
		set := f.fs.Lookup(row.name)
		v := set.Value.String()
		c.values[row.name] = v
		switch {
		case row.kind == ignored && set.Changed:
			c.WithoutEffect = append(c.WithoutEffect, "--"+row.name+"="+v)
		case row.kind == refused && v != row.value:
			problems = append(problems, fmt.Errorf("--%s=%s: not supported by Quartet yet; leave it out", row.name, v))
		}
	}
	problems = append(problems, c.addresses()...)
	problems = append(problems, c.timing()...)
	problems = append(problems, c.cluster()...)
	return c, errors.Join(problems...)
}

// environment sets flags that were not given from ETCD_*. As in etcd, a
// variable beside its flag is an error: one of the two is not what was meant.
func (f *Flags) environment(environ []string) (problems []error) {
	env := make(map[string]string)
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(k, "ETCD_") {
			env[k] = v
		}
	}
	for _, row := range table {
		key := "ETCD_" + strings.ToUpper(strings.ReplaceAll(row.name, "-", "_"))
		v, ok := env[key]
		if !ok || v == "" {
			continue
		}
		if f.fs.Changed(row.name) {
			problems = append(problems, fmt.Errorf("--%s: conflicting environment variable %s is shadowed by the flag; unset one of them", row.name, key))
			continue
		}
		if err := f.fs.Set(row.name, v); err != nil {
			problems = append(problems, fmt.Errorf("%s=%s: %w", key, v, err))
		}
	}
	return problems
}

func (c *Config) addresses() (problems []error) {
	c.Name, c.DataDir, c.LogLevel, c.Token = c.values["name"], c.values["data-dir"], c.values["log-level"], c.values["initial-cluster-token"]
	if c.DataDir == "" {
		c.DataDir = c.Name + ".etcd"
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		problems = append(problems, fmt.Errorf("--log-level=%s: not a level; use debug, info, warn or error", c.LogLevel))
	}
	read := func(flag string, listen bool) (urls, addrs []string) {
		urls, addrs, err := parseURLs(flag, c.values[flag], listen)
		if err != nil {
			problems = append(problems, err)
		}
		return urls, addrs
	}
	_, c.ListenClient = read("listen-client-urls", true)
	_, c.ListenPeer = read("listen-peer-urls", true)
	_, c.ListenMetrics = read("listen-metrics-urls", true)
	c.AdvertiseURLs, _ = read("advertise-client-urls", false)
	c.AdvertisePeer, _ = read("initial-advertise-peer-urls", false)
	return problems
}

func (c *Config) timing() (problems []error) {
	number := func(flag string, unit time.Duration, least int64) int64 {
		n, err := strconv.ParseInt(c.values[flag], 10, 64)
		if err != nil || n < least {
			problems = append(problems, fmt.Errorf("--%s=%s: must be a whole number, %d or more", flag, c.values[flag], least))
		}
		return n * int64(unit)
	}
	c.Heartbeat = time.Duration(number("heartbeat-interval", time.Millisecond, 1))
	c.Election = time.Duration(number("election-timeout", time.Millisecond, 1))
	c.RequestBytes = int(number("max-request-bytes", 1, 1))
	c.TxnOps = int(number("max-txn-ops", 1, 1))
	if c.Election < 5*c.Heartbeat {
		problems = append(problems, fmt.Errorf("--election-timeout=%s: should be at least as 5 times as --heartbeat-interval=%s", c.values["election-timeout"], c.values["heartbeat-interval"]))
	}
	if c.Election > 50*time.Second {
		problems = append(problems, fmt.Errorf("--election-timeout=%s: is too long, and should be set less than 50000", c.values["election-timeout"]))
	}
	var err error
	if c.Progress, err = time.ParseDuration(c.values["watch-progress-notify-interval"]); err != nil || c.Progress < 100*time.Millisecond {
		problems = append(problems, fmt.Errorf("--watch-progress-notify-interval=%s: must be a duration of 100ms or more", c.values["watch-progress-notify-interval"]))
	}
	return problems
}

func (c *Config) cluster() (problems []error) {
	switch state := c.values["initial-cluster-state"]; state {
	case "new":
	case "existing":
		// Only a member whose data is there can join: it starts from its log.
		if _, err := os.Stat(c.DataDir); err != nil {
			problems = append(problems, fmt.Errorf("--initial-cluster-state=existing: %s holds no member, and adding members is not supported by Quartet yet", c.DataDir))
		}
	default:
		problems = append(problems, fmt.Errorf("--initial-cluster-state=%s: use new or existing", state))
	}
	spec := c.values["initial-cluster"]
	if spec == "" { // as in etcd: a cluster of this member alone
		c.Members = []Member{{c.Name, c.AdvertisePeer}}
		return problems
	}
	for row := range strings.SplitSeq(spec, ",") {
		name, u, ok := strings.Cut(strings.TrimSpace(row), "=")
		if !ok || name == "" {
			problems = append(problems, fmt.Errorf("--initial-cluster=%s: %q is not name=URL", spec, row))
			continue
		}
		urls, _, err := parseURLs("initial-cluster", u, false)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if i := slices.IndexFunc(c.Members, func(m Member) bool { return m.Name == name }); i >= 0 {
			c.Members[i].PeerURLs = append(c.Members[i].PeerURLs, urls...)
		} else {
			c.Members = append(c.Members, Member{name, urls})
		}
	}
	return append(problems, c.selfInCluster(spec)...)
}

// selfInCluster holds what etcd holds: this member is in the list, with the
// URLs that it advertises.
func (c *Config) selfInCluster(spec string) []error {
	i := slices.IndexFunc(c.Members, func(m Member) bool { return m.Name == c.Name })
	if i < 0 {
		return []error{fmt.Errorf("--initial-cluster=%s: couldn't find local name %q in the initial cluster configuration; set --name to one of it", spec, c.Name)}
	}
	listed, advertised := slices.Clone(c.Members[i].PeerURLs), slices.Clone(c.AdvertisePeer)
	slices.Sort(listed)
	slices.Sort(advertised)
	if !slices.Equal(listed, advertised) {
		return []error{fmt.Errorf("--initial-cluster has %s for %s but --initial-advertise-peer-urls is %s; they must be equal",
			strings.Join(listed, ","), c.Name, strings.Join(advertised, ","))}
	}
	return nil
}

// parseURLs checks a list of URLs as etcd does and returns them with the
// addresses that they name.
func parseURLs(flag, list string, listen bool) (urls, addrs []string, err error) {
	if list == "" {
		return nil, nil, nil
	}
	for s := range strings.SplitSeq(list, ",") {
		s = strings.TrimSpace(s)
		u, err := url.Parse(s)
		if err != nil {
			return nil, nil, fmt.Errorf("--%s=%s: %w", flag, s, err)
		}
		switch {
		case u.Scheme == "unix" || u.Scheme == "unixs":
			urls, addrs = append(urls, s), append(addrs, "unix:"+u.Host+u.Path)
			continue
		case u.Scheme == "https":
			return nil, nil, fmt.Errorf("--%s=%s: TLS is not supported by Quartet yet; use http", flag, s)
		case u.Scheme != "http":
			return nil, nil, fmt.Errorf("--%s=%s: URL scheme must be http, https, unix, or unixs", flag, s)
		case u.Path != "":
			return nil, nil, fmt.Errorf("--%s=%s: URL must not contain a path", flag, s)
		}
		host, port, err := net.SplitHostPort(u.Host)
		if err != nil {
			return nil, nil, fmt.Errorf(`--%s=%s: URL address does not have the form "host:port"`, flag, s)
		}
		if !listen && host == "" {
			return nil, nil, fmt.Errorf("--%s=%s: the host that others should use is missing", flag, s)
		}
		if listen && host != "localhost" && host != "" && net.ParseIP(host) == nil {
			return nil, nil, fmt.Errorf("--%s=%s: expected IP in URL for binding", flag, s)
		}
		urls, addrs = append(urls, s), append(addrs, net.JoinHostPort(host, port))
	}
	return urls, addrs, nil
}

// Address is where a URL is reached: its host and port.
func Address(u string) string {
	parsed, err := url.Parse(u)
	if err != nil {
		return u
	}
	return parsed.Host
}

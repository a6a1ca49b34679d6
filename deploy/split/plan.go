package split

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
)

// Config of a split cluster.
type Config struct {
	Members int
	// ClientAddrs has one address for each gateway.
	ClientAddrs []string
	DataDir     string // absolute
	Engine      string
	LogLevel    string
	Log         *slog.Logger
}

// New plans the cluster and returns what runs it until its context ends.
func New(c Config) (func(context.Context) error, error) {
	rows, err := ReadTable(c.DataDir)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if alive(r) {
			return nil, fmt.Errorf("%s is still running as process %d (%s): stop it first", r.Name, r.PID, filepath.Join(c.DataDir, TableName))
		}
	}
	addrs := newAddresses(rows)
	processes, err := c.plan(addrs)
	if err != nil {
		addrs.release()
		return nil, err
	}
	return func(ctx context.Context) error {
		addrs.release()
		return supervise(ctx, c.DataDir, c.Log, processes)
	}, nil
}

// plan is the cluster as command lines, in the order of their start.
func (c Config) plan(addrs *addresses) ([]process, error) {
	var all []process
	var failed error
	addr := func(name string) string {
		a, err := addrs.of(name)
		if err != nil && failed == nil {
			failed = fmt.Errorf("address of %s: %w", name, err)
		}
		return a
	}
	add := func(name, addr string, args ...string) {
		all = append(all, process{name: name, addr: addr, args: args})
	}
	bus := "nats://" + addr("nats")
	add("nats", addr("nats"), "nats", "--listen="+addr("nats"))

	var members, seeds []string
	for i := 1; i <= c.Members; i++ {
		consensus := addr(fmt.Sprintf("consensusd-%d", i))
		seeds = append(seeds, consensus)
		members = append(members, fmt.Sprintf("--member=name=m%d,peer=http://%s,store=%s,lease=%s",
			i, consensus, addr(fmt.Sprintf("stored-%d", i)), addr(fmt.Sprintf("leased-%d", i))))
	}
	daemon := func(kind string, i int, args ...string) {
		name := fmt.Sprintf("%s-%d", kind, i)
		args = append([]string{kind, "--listen=" + addr(name), "--log-level=" + c.LogLevel}, args...)
		add(name, addr(name), args...)
	}
	dir := func(kind string, i int) string {
		return "--data-dir=" + filepath.Join(c.DataDir, fmt.Sprintf("m%d", i), kind)
	}
	for i := 1; i <= c.Members; i++ {
		daemon("consensusd", i, append([]string{fmt.Sprintf("--name=m%d", i), dir("consensus", i)}, members...)...)
	}
	for i := 1; i <= c.Members; i++ {
		daemon("stored", i, dir("store", i), fmt.Sprintf("--name=stored-%d", i), "--member-consensus="+seeds[i-1], "--engine="+c.Engine, "--nats="+bus)
	}
	for i := 1; i <= c.Members; i++ {
		daemon("leased", i, "--consensus="+seeds[i-1], "--store="+addr(fmt.Sprintf("stored-%d", i)), "--seed="+strings.Join(seeds, ","))
	}
	for i, client := range c.ClientAddrs {
		name := fmt.Sprintf("gatewayd-%d", i+1)
		add(name, client, "gatewayd", "--log-level="+c.LogLevel, "--name="+name,
			"--client-listen="+client, fmt.Sprintf("--member=m%d", i%c.Members+1), "--consensus="+strings.Join(seeds, ","), "--nats="+bus)
	}
	return all, failed
}

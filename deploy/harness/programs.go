package harness

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Member is a member of the cluster as its clients see it. In up and split the
// endpoints are those of gateways, which belong to no member; then Member i is
// only a name for the pair of gateway i and the daemons numbered i.
type Member struct {
	Name     string
	Endpoint string // host:port
}

// plan fills in what will run: the processes to start, members and endpoints.
func (c *Cluster) plan() error {
	if c.opts.Kind == Up || c.opts.Kind == Split {
		return c.planUp()
	}
	return c.planMembers()
}

func (c *Cluster) planUp() error {
	first, err := freePorts(c.opts.Gateways)
	if err != nil {
		return err
	}
	argv := []string{
		c.program, "up",
		"--members", fmt.Sprint(c.opts.Members),
		"--gateways", fmt.Sprint(c.opts.Gateways),
		"--client-addr", loopback(first),
		"--data-dir", c.dataDir("quartet"),
		"--engine", c.opts.Engine,
	}
	if c.opts.Kind == Split {
		argv = append(argv, "--split")
	}
	c.add("quartet", append(argv, c.opts.Args...))
	for i := range c.opts.Gateways {
		c.members = append(c.members, Member{Name: fmt.Sprintf("m%d", i+1), Endpoint: loopback(first + i)})
	}
	return nil
}

func (c *Cluster) planMembers() error {
	first, err := freePorts(2 * c.opts.Members)
	if err != nil {
		return err
	}
	var initial []string
	for i := range c.opts.Members {
		initial = append(initial, fmt.Sprintf("m%d=http://%s", i+1, loopback(first+2*i+1)))
	}
	for i := range c.opts.Members {
		name, client, peer := fmt.Sprintf("m%d", i+1), loopback(first+2*i), loopback(first+2*i+1)
		argv := []string{
			c.program, "--name", name,
			"--data-dir", c.dataDir(name),
			"--listen-client-urls", "http://" + client,
			"--advertise-client-urls", "http://" + client,
			"--listen-peer-urls", "http://" + peer,
			"--initial-advertise-peer-urls", "http://" + peer,
			"--initial-cluster", strings.Join(initial, ","),
			"--initial-cluster-state", "new",
			"--initial-cluster-token", "harness",
		}
		switch c.opts.Kind {
		case Compact:
			argv = append([]string{argv[0], "member"}, argv[1:]...)
		case Etcd34:
			argv = append(argv, "--logger", "zap", "--log-outputs", "stderr")
		case Etcd37:
			argv = append(argv, "--log-outputs", "stderr")
		}
		c.add(name, append(argv, c.opts.Args...))
		c.members = append(c.members, Member{Name: name, Endpoint: client})
	}
	return nil
}

func (c *Cluster) dataDir(name string) string { return filepath.Join(c.dir, "data", name) }

func (c *Cluster) add(name string, argv []string) {
	c.main = append(c.main, name)
	c.mu.procs[name] = &process{Process: Process{Name: name}, argv: argv}
}

package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// supervisor is the process of `quartet up`; in split the daemons are its
// children, listed in processesFile in its data directory.
const (
	supervisor    = "quartet"
	processesFile = "processes.tsv"
)

// adopt reads processes.tsv and adds the daemons that it lists.
func (c *Cluster) adopt() error {
	path := filepath.Join(c.dataDir(supervisor), processesFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	daemons, err := parseProcesses(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.daemons = nil
	for _, d := range daemons {
		c.daemons = append(c.daemons, d.Name)
		c.mu.procs[d.Name] = &process{
			Process: d,
			argv:    []string{"/bin/sh", "-c", "exec " + d.Command},
		}
	}
	return nil
}

// waitAdopt waits for processes.tsv: the supervisor writes it while it starts.
func (c *Cluster) waitAdopt(ctx context.Context) error {
	return waitFor(ctx, processesFile, func() (bool, error) {
		if err := c.adopt(); errors.Is(err, fs.ErrNotExist) {
			return false, c.checkRunning()
		} else if err != nil {
			return false, err
		}
		return true, nil
	})
}

// parseProcesses reads lines of name, pid, address and command line, separated
// by tabs; a line whose pid is not a number is a heading.
func parseProcesses(text string) ([]Process, error) {
	var ps []Process
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		fields := strings.SplitN(line, "\t", 4)
		if len(fields) != 4 {
			return nil, fmt.Errorf("line %q: %d fields, want 4", line, len(fields))
		}
		pid, err := strconv.Atoi(fields[1])
		if err != nil {
			continue
		}
		ps = append(ps, Process{Name: fields[0], PID: pid, Address: fields[2], Command: fields[3]})
	}
	if len(ps) == 0 {
		return nil, errors.New("no process listed")
	}
	return ps, nil
}

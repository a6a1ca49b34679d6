package harness

import (
	"fmt"
	"time"
)

// Usage is what the server processes of a cluster have used together.
type Usage struct {
	CPU     time.Duration // user and system, since each process started
	PeakRSS int64         // bytes: the sum of each process's highest resident set
}

// Usage sums over all processes that run now. Linux only.
func (c *Cluster) Usage() (Usage, error) {
	var u Usage
	for _, p := range c.Processes() {
		cpu, err := processCPU(p.PID)
		if err != nil {
			return u, fmt.Errorf("usage of process %s: %w", p.Name, err)
		}
		rss, err := processPeakRSS(p.PID)
		if err != nil {
			return u, fmt.Errorf("usage of process %s: %w", p.Name, err)
		}
		u.CPU += cpu
		u.PeakRSS += rss
	}
	return u, nil
}

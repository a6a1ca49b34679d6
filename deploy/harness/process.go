package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	exitWithin = 15 * time.Second      // after a signal that ends a process
	pollEvery  = 10 * time.Millisecond // of a file or of a foreign process
)

var errNotRunning = errors.New("not running")

// Process is one server process of a cluster.
type Process struct {
	Name    string
	PID     int
	Address string // the address of a daemon in split; else empty
	Command string // its command line
	LogPath string // empty for a daemon of split that its supervisor started
}

// process is a Process that can be waited for: our own child (done is closed at
// its end), or a daemon of split, child of the supervisor (done is nil).
type process struct {
	Process
	argv []string
	done chan struct{}
}

func (p *process) running() bool {
	if p.PID == 0 {
		return false
	}
	if p.done != nil {
		select {
		case <-p.done:
			return false
		default:
			return true
		}
	}
	return pidRunning(p.PID)
}

func (p *process) signal(sig syscall.Signal) error {
	if !p.running() {
		return fmt.Errorf("signal %v to process %s: %w", sig, p.Name, errNotRunning)
	}
	if err := syscall.Kill(p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %v to process %s (%d): %w", sig, p.Name, p.PID, err)
	}
	return nil
}

func (p *process) waitExit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, exitWithin)
	defer cancel()
	return waitFor(ctx, "end of process "+p.Name, func() (bool, error) { return !p.running(), nil })
}

// starter forks the processes of one cluster from one thread that lives as long
// as the cluster (see invariant 4).
type starter struct {
	requests chan func()
}

func newStarter() *starter {
	s := &starter{requests: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range s.requests {
			f()
		}
	}()
	return s
}

func (s *starter) close() { close(s.requests) }

// start runs p.argv, its output appended to dir/name.log.
func (s *starter) start(p *process, dir string) error {
	p.LogPath = filepath.Join(dir, p.Name+".log")
	out, err := os.OpenFile(p.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log of process %s: %w", p.Name, err)
	}
	defer out.Close()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, dir
	cmd.SysProcAttr = processAttr()
	started := make(chan error, 1)
	s.requests <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return fmt.Errorf("start process %s: %w", p.Name, err)
	}
	p.PID, p.Command = cmd.Process.Pid, strings.Join(p.argv, " ")
	done := make(chan struct{})
	p.done = done
	go func() {
		_ = cmd.Wait() // how it ended is in its log; a test asks only whether
		close(done)
	}()
	return nil
}

// waitFor polls cond until it holds, ctx ends or cond fails for good.
func waitFor(ctx context.Context, what string, cond func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := cond()
		if ok {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
	}
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func cutLines(text string, width int) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if len(line) > width {
			lines[i] = line[:width] + "..."
		}
	}
	return strings.Join(lines, "\n")
}

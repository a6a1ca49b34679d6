package split

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// stopGrace is how long a process may take to end when asked to.
const stopGrace = 10 * time.Second

// process is one daemon to run.
type process struct {
	name, addr string
	args       []string // after the program's own path
}

type child struct {
	process
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// supervise starts the processes in order, writes the table and waits for ctx;
// then it ends them in reverse order.
//
// It runs on one locked OS thread: the kernel's promise to kill the children
// with their parent is tied to the thread that made them.
func supervise(ctx context.Context, dir string, log *slog.Logger, processes []process) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var children []*child
	defer func() { stopAll(children, log) }()
	rows := make([]Row, 0, len(processes))
	for _, p := range processes {
		c, err := start(dir, self, p, log)
		if err != nil {
			return fmt.Errorf("start %s: %w", p.name, err)
		}
		children = append(children, c)
		rows = append(rows, Row{Name: p.name, PID: c.cmd.Process.Pid, Address: p.addr, Command: append([]string{self}, p.args...)})
	}
	if err := writeTable(dir, rows); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func start(dir, self string, p process, log *slog.Logger) (*child, error) {
	logs := filepath.Join(dir, "logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(filepath.Join(logs, p.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c := &child{process: p, done: make(chan struct{})}
	c.cmd = exec.Command(self, p.args...)
	c.cmd.Stdout, c.cmd.Stderr = out, io.Writer(out)
	// A group of its own: Ctrl-C reaches this process, which ends the others in
	// order.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.done)
		err := c.cmd.Wait()
		log.Warn("process ended; not started again", "name", p.name, "state", c.cmd.ProcessState.String(), "err", err)
	}()
	return c, nil
}

// stopAll asks the children to end, last started first, and kills those that
// take too long.
func stopAll(children []*child, log *slog.Logger) {
	deadline := time.After(stopGrace)
	for i := len(children) - 1; i >= 0; i-- {
		c := children[i]
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
		_ = c.cmd.Process.Signal(syscall.SIGCONT) // a paused one must hear it
		select {
		case <-c.done:
		case <-deadline:
			log.Warn("process did not end in time; killed", "name", c.name)
			deadline = time.After(0)
			_ = c.cmd.Process.Kill()
			<-c.done
		}
	}
}

// alive tells whether the process of a row still runs that row's command.
func alive(r Row) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", r.PID))
	if err != nil {
		return false
	}
	return strings.TrimSuffix(string(line), "\x00") == strings.Join(r.Command, "\x00")
}

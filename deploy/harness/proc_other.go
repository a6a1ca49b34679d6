//go:build unix && !linux

package harness

import (
	"errors"
	"syscall"
	"time"
)

var errNoProc = errors.New("usage of processes is read from /proc, which only Linux has")

func processAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func pidRunning(pid int) bool { return syscall.Kill(pid, 0) == nil }

func processCPU(int) (time.Duration, error) { return 0, errNoProc }

func processPeakRSS(int) (int64, error) { return 0, errNoProc }

func pidStopped(int) bool { return true }

package harness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of /proc's CPU times; Linux shows 100 ticks a second to
// user space on every architecture.
const clockTick = 10 * time.Millisecond

func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// pidRunning reports whether any thread of pid is left. The first thread of a
// killed process may be a zombie while others still end, and with them open
// files and their locks.
func pidRunning(pid int) bool {
	const threads = 17 // field 20 of proc(5)
	fields, err := statFields(pid)
	if err != nil {
		return false
	}
	return fields[0] != "Z" && fields[0] != "X" || fields[threads] != "1" && fields[threads] != "0"
}

// pidStopped reports whether every thread of pid is stopped or gone.
func pidStopped(pid int) bool {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return true
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			continue
		}
		if fields, err := statFields(id); err == nil && fields[0] != "T" && fields[0] != "Z" {
			return false
		}
	}
	return true
}

// statFields returns the fields of /proc/<pid>/stat from the state on: the name
// before them may hold anything, so they are counted from its closing bracket.
func statFields(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	end := strings.LastIndexByte(string(text), ')')
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 20 {
		return nil, fmt.Errorf("/proc/%d/stat: %d fields after the name", pid, len(fields))
	}
	return fields, nil
}

func processCPU(pid int) (time.Duration, error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	const utime, stime = 11, 12 // fields 14 and 15 of proc(5)
	var sum int64
	for _, i := range []int{utime, stime} {
		ticks, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += ticks
	}
	return time.Duration(sum) * clockTick, nil
}

func processPeakRSS(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status: no VmHWM", pid)
}

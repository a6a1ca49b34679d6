package harness

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseProcessesReadsNameAndCommandLine(t *testing.T) {
	got, err := parseProcesses("name\tpid\taddress\tcommand\nstored-1\t42\t127.0.0.1:1\t/bin/q stored --a 'b c'\n")
	if err != nil {
		t.Fatal(err)
	}
	want := Process{Name: "stored-1", PID: 42, Address: "127.0.0.1:1", Command: "/bin/q stored --a 'b c'"}
	if len(got) != 1 || got[0] != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if _, err := parseProcesses("stored-1 42\n"); err == nil {
		t.Fatal("a line without tabs was accepted")
	}
}

func TestParseKindsRefusesUnknown(t *testing.T) {
	if _, err := ParseKinds("up,etcd99"); err == nil || !strings.Contains(err.Error(), "etcd99") {
		t.Fatalf("err %v, want one that names etcd99", err)
	}
}

// TestEtcdProcessesObey drives a one-member etcd 3.4 through kill, restart,
// pause and halt: what the fault tests stand on.
func TestEtcdProcessesObey(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := Start(ctx, Options{Kind: Etcd34, Members: 1, Binaries: NewBinaries(t.TempDir())})
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := cl.Put(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}

	pid := c.Processes()[0].PID
	if err := c.Kill(ctx, "m1"); err != nil {
		t.Fatal(err)
	}
	if len(c.Processes()) != 0 || pidRunning(pid) {
		t.Fatal("m1 runs after Kill")
	}
	if err := c.Restart("m1"); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}

	if err := c.Pause("m1"); err != nil {
		t.Fatal(err)
	}
	paused, cancelPaused := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancelPaused()
	if _, err := cl.Get(paused, "k"); err == nil {
		t.Fatal("a paused member answered")
	}
	if err := c.Resume("m1"); err != nil {
		t.Fatal(err)
	}

	if err := c.Halt(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Launch(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := cl.Get(ctx, "k")
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("after halt and launch: %v, %v", got, err)
	}
	if n, _, err := c.Leader(ctx); err != nil || n != 1 {
		t.Fatalf("leader %d, %v", n, err)
	}
	if u, err := c.Usage(); err == nil && u.PeakRSS == 0 {
		t.Fatal("no memory used")
	}
}

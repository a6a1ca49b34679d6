package daemon_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/spf13/pflag"

	"github.com/quartet-kv/quartet/services/daemon"
)

func TestStagesStopInReverseOrder(t *testing.T) {
	var mu sync.Mutex
	var stopped []int
	started := make(chan struct{}, 3)
	stage := func(n int) daemon.Stage {
		return daemon.Stage{func(ctx context.Context) error {
			started <- struct{}{}
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			stopped = append(stopped, n)
			return ctx.Err()
		}}
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for range 3 {
			<-started
		}
		cancel()
	}()
	if err := daemon.RunStages(ctx, stage(1), stage(2), stage(3)); err != nil {
		t.Errorf("a clean stop is no error: %v", err)
	}
	if !slices.Equal(stopped, []int{3, 2, 1}) {
		t.Errorf("stopped in order %v", stopped)
	}
}

func TestFirstErrorStopsEveryStage(t *testing.T) {
	broken := errors.New("broken")
	wait := daemon.Stage{func(ctx context.Context) error { <-ctx.Done(); return nil }}
	err := daemon.RunStages(context.Background(), wait, daemon.Stage{func(context.Context) error { return broken }}, wait)
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestFlagsFromEnvironment(t *testing.T) {
	fs := pflag.NewFlagSet("stored", pflag.ContinueOnError)
	dir, n := fs.String("data-dir", "", ""), fs.Int("limit", 1, "")
	t.Setenv("QUARTET_STORED_DATA_DIR", "/d")
	t.Setenv("QUARTET_STORED_LIMIT", "x")
	if err := daemon.FlagsFromEnv(fs, "QUARTET_stored"); err == nil {
		t.Error("a bad value was accepted")
	}
	t.Setenv("QUARTET_STORED_LIMIT", "5")
	if err := fs.Parse([]string{"--limit=7"}); err != nil {
		t.Fatal(err)
	}
	if err := daemon.FlagsFromEnv(fs, "QUARTET_stored"); err != nil {
		t.Fatal(err)
	}
	if *dir != "/d" || *n != 7 {
		t.Errorf("dir %q, limit %d", *dir, *n)
	}
}

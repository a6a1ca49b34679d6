package bench

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quartet-kv/quartet/deploy/harness"
)

func TestValidateReportsEveryViolation(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Clients, cfg.At, cfg.Workloads = 0, "moon", []string{"sleep"}
	err := cfg.Validate()
	for _, part := range []string{"--clients 0", `--at "moon"`, `"sleep"`, "--targets"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not name %q", err, part)
		}
	}
}

func TestPercentileIsNearestRank(t *testing.T) {
	values := []time.Duration{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for p, want := range map[int]time.Duration{1: 1, 50: 5, 99: 10, 100: 10} {
		if got := percentile(values, p); got != want {
			t.Errorf("p%d: %d, want %d", p, got, want)
		}
	}
}

func TestRatiosAreToTheBetterEtcd(t *testing.T) {
	rows := []Row{
		{Workload: "put", Target: "compact", PerSecond: 200, ServerCPU: 50},
		{Workload: "put", Target: "etcd37", PerSecond: 50, ServerCPU: 100},
		{Workload: "put", Target: "etcd34", PerSecond: 100, ServerCPU: 200},
		{Workload: "get", Target: "etcd34", PerSecond: 1, ServerCPU: 1},
	}
	addRatios(rows)
	if rows[0].SpeedRatio != 2 || rows[0].CPURatio != 0.5 {
		t.Errorf("ratios %v and %v, want 2 and 0.5", rows[0].SpeedRatio, rows[0].CPURatio)
	}
}

// TestEveryWorkloadRuns measures a small load of each kind on an etcd.
func TestEveryWorkloadRuns(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cfg := DefaultConfig()
	cfg.Targets, cfg.Members = []harness.Kind{harness.Etcd34}, 1
	cfg.Conns, cfg.Clients, cfg.Total, cfg.Keys, cfg.Watchers = 2, 10, 200, 300, 10
	rows, err := Run(ctx, cfg, slog.New(slog.DiscardHandler))
	if errors.Is(err, harness.ErrUnavailable) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(workloadNames()) {
		t.Fatalf("%d rows, want %d", len(rows), len(workloadNames()))
	}
	for _, r := range rows {
		if r.PerSecond <= 0 || r.P50 <= 0 || r.P99 < r.P50 || r.PeakRSS <= 0 {
			t.Errorf("%+v", r)
		}
	}
	var md, table bytes.Buffer
	if err := errors.Join(WriteMarkdown(&md, cfg, rows), WriteCSV(&table, rows)); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(table.String(), "\n"); n != len(rows)+1 {
		t.Errorf("CSV of %d lines for %d rows", n, len(rows))
	}
	t.Log(md.String())
}

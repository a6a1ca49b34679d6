package bench

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quartet-kv/quartet/deploy/harness"
)

// Row is what was measured of one workload on one target: medians over rounds.
type Row struct {
	Workload, Target string
	PerSecond        float64       // operations
	Lowest, Highest  float64       // of PerSecond over the rounds
	P50, P99         time.Duration // latency
	ServerCPU        time.Duration // per operation, all server processes; 0: unknown
	ClientCPU        time.Duration // per operation
	PeakRSS          int64         // bytes, all server processes; 0: unknown

	// Ratios to the better etcd of the run, 0 without one: above 1 is faster, and
	// below 1 cheaper.
	SpeedRatio, CPURatio float64
}

func newRow(workload, target string, samples []sample) Row {
	r := Row{Workload: workload, Target: target}
	r.PerSecond = median(samples, perSecond)
	r.Lowest, r.Highest = perSecond(samples[0]), perSecond(samples[0])
	for _, s := range samples {
		r.Lowest, r.Highest = min(r.Lowest, perSecond(s)), max(r.Highest, perSecond(s))
		r.PeakRSS = max(r.PeakRSS, s.serverPeak)
	}
	r.P50 = median(samples, func(s sample) time.Duration { return s.p50 })
	r.P99 = median(samples, func(s sample) time.Duration { return s.p99 })
	r.ServerCPU = median(samples, func(s sample) time.Duration { return s.serverCPU / time.Duration(s.ops) })
	r.ClientCPU = median(samples, func(s sample) time.Duration { return s.clientCPU / time.Duration(s.ops) })
	return r
}

func perSecond(s sample) float64 { return float64(s.ops) / s.took.Seconds() }

func median[T cmp.Ordered](samples []sample, of func(sample) T) T {
	var values []T
	for _, s := range samples {
		values = append(values, of(s))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// addRatios compares each row with the better etcd of its workload, taken for
// speed and for CPU apart.
func addRatios(rows []Row) {
	for i := range rows {
		r := &rows[i]
		var speed float64
		var cpu time.Duration
		for _, o := range rows {
			if o.Workload != r.Workload || (o.Target != string(harness.Etcd37) && o.Target != string(harness.Etcd34)) {
				continue
			}
			speed = max(speed, o.PerSecond)
			if cpu == 0 || (o.ServerCPU > 0 && o.ServerCPU < cpu) {
				cpu = o.ServerCPU
			}
		}
		if speed > 0 {
			r.SpeedRatio = r.PerSecond / speed
		}
		if cpu > 0 {
			r.CPURatio = float64(r.ServerCPU) / float64(cpu)
		}
	}
}

// WriteMarkdown writes the rows as one table.
func WriteMarkdown(w io.Writer, cfg Config, rows []Row) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d members, %d connections, %d clients, at %s, %d B keys, %d B values, median of %d\n\n",
		cfg.Members, cfg.Conns, cfg.Clients, cfg.At, cfg.KeySize, cfg.ValueSize, cfg.Rounds)
	b.WriteString("| workload | target | ops/s (spread) | × etcd | p50 | p99 | server CPU µs/op | × etcd | client CPU µs/op | servers' peak MB |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %.0f (%.0f–%.0f) | %s | %s | %s | %s | %s | %.1f | %s |\n",
			workloads[r.Workload].title, r.Target, r.PerSecond, r.Lowest, r.Highest, ratio(r.SpeedRatio),
			latency(r.P50), latency(r.P99), known(micros(r.ServerCPU), 1), ratio(r.CPURatio), micros(r.ClientCPU), known(float64(r.PeakRSS)/(1<<20), 0))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteCSV writes the rows with plain numbers: durations in microseconds, memory
// in bytes.
func WriteCSV(w io.Writer, rows []Row) error {
	out := csv.NewWriter(w)
	records := [][]string{{"workload", "target", "ops_per_second", "lowest", "highest", "speed_ratio", "p50_us", "p99_us",
		"server_cpu_us_per_op", "cpu_ratio", "client_cpu_us_per_op", "peak_rss_bytes"}}
	number := func(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) }
	for _, r := range rows {
		records = append(records, []string{r.Workload, r.Target, number(r.PerSecond), number(r.Lowest), number(r.Highest), number(r.SpeedRatio),
			number(micros(r.P50)), number(micros(r.P99)), number(micros(r.ServerCPU)), number(r.CPURatio), number(micros(r.ClientCPU)),
			strconv.FormatInt(r.PeakRSS, 10)})
	}
	return out.WriteAll(records)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func latency(d time.Duration) string { return fmt.Sprintf("%.2f ms", micros(d)/1000) }

func ratio(f float64) string { return known(f, 2) }

// known shows a figure, or a dash for one that is not there.
func known(f float64, digits int) string {
	if f == 0 {
		return "–"
	}
	return strconv.FormatFloat(f, 'f', digits, 64)
}

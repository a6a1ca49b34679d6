package bench

import (
	"io"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Command is `quartet bench`. The clusters that it starts are of the program
// that it is part of.
func Command() *cobra.Command {
	cfg := DefaultConfig()
	var markdown, csvPath string
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a running cluster, or Quartet and etcd in turn",
		Long: "Measures throughput, latency, and, for clusters that it starts (--targets), the servers' CPU per operation and\n" +
			"peak memory. Several targets are measured in turn in one run. CPU and memory are read from /proc: Linux only.",
		Example: "  quartet bench --endpoints 127.0.0.1:2379 --workloads put,get\n" +
			"  quartet bench --targets compact,split,etcd37,etcd34 --rounds 3 --csv bench.csv",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Quartet == "" {
				self, err := os.Executable()
				if err != nil {
					return err
				}
				cfg.Quartet = self
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			rows, err := Run(cmd.Context(), cfg, log)
			if err != nil {
				return err
			}
			if err := writeTo(markdown, cmd.OutOrStdout(), func(w io.Writer) error { return WriteMarkdown(w, cfg, rows) }); err != nil {
				return err
			}
			if csvPath == "" {
				return nil
			}
			return writeTo(csvPath, nil, func(w io.Writer) error { return WriteCSV(w, rows) })
		},
	}
	cfg.AddFlags(cmd.Flags())
	cmd.Flags().StringVar(&markdown, "markdown", "", "file for the table (default: standard output)")
	cmd.Flags().StringVar(&csvPath, "csv", "", "file for the same figures as CSV")
	return cmd
}

// writeTo writes to the named file, or to fallback without a name.
func writeTo(path string, fallback io.Writer, write func(io.Writer) error) error {
	if path == "" {
		return write(fallback)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// ownCPU is the user and system time of this process: the clients' cost.
func ownCPU() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

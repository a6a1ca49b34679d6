package stored

import (
	"github.com/spf13/cobra"

	"github.com/quartet-kv/quartet/services/daemon"
)

// Command is the daemon's command line.
func Command() *cobra.Command {
	cfg := DefaultConfig()
	return daemon.Command("stored", "State: apply the log, answer reads at any kept revision", &cfg, func(env daemon.Env) (daemon.Service, error) {
		return New(cfg, Deps{Log: env.Log, Metrics: env.Metrics, Dialer: env.Dialer})
	})
}

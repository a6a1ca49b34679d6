package leased

import (
	"github.com/spf13/cobra"

	"github.com/quartet-kv/quartet/services/daemon"
)

// Command is the daemon's command line.
func Command() *cobra.Command {
	cfg := DefaultConfig()
	return daemon.Command("leased", "Time: the lessor beside one member", &cfg, func(env daemon.Env) (daemon.Service, error) {
		return New(cfg, Deps{Log: env.Log, Metrics: env.Metrics, Dialer: env.Dialer})
	})
}

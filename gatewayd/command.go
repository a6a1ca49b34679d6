package gatewayd

import (
	"github.com/spf13/cobra"

	"github.com/quartet-kv/quartet/services/daemon"
)

// Command is a gateway's command line.
func Command() *cobra.Command {
	cfg := DefaultConfig()
	return daemon.Command("gatewayd", "the etcd face of a cluster", &cfg, func(env daemon.Env) (daemon.Service, error) {
		return New(cfg, Deps{Log: env.Log, Metrics: env.Metrics, Dialer: env.Dialer})
	})
}

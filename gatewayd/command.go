package gatewayd

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quartet-kv/quartet/services/bus/nats"
	"github.com/quartet-kv/quartet/services/daemon"
)

// Command is a gateway's command line.
func Command() *cobra.Command {
	cfg := DefaultConfig()
	return daemon.Command("gatewayd", "the etcd face of a cluster", &cfg, func(env daemon.Env) (daemon.Service, error) {
		deps := Deps{Log: env.Log, Metrics: env.Metrics, Dialer: env.Dialer}
		if cfg.NATS != "" {
			// Open as long as the process.
			news, err := nats.Connect(nats.Config{URLs: strings.Split(cfg.NATS, ","), Name: "gatewayd", Log: env.Log})
			if err != nil {
				return nil, fmt.Errorf("--nats=%s: %w", cfg.NATS, err)
			}
			deps.Bus = news
		}
		return New(cfg, deps)
	})
}

package main

import (
	"github.com/spf13/cobra"

	"github.com/quartet-kv/quartet/consensusd"
	"github.com/quartet-kv/quartet/deploy/bench"
	"github.com/quartet-kv/quartet/gatewayd"
	"github.com/quartet-kv/quartet/leased"
	"github.com/quartet-kv/quartet/stored"
)

// version is Quartet's own; etcdVersion is the etcd whose API it speaks.
const (
	version     = "0.1.0"
	etcdVersion = gatewayd.Version
)

func commands() []*cobra.Command {
	return []*cobra.Command{
		upCommand(),
		memberCommand(),
		consensusd.Command(),
		stored.Command(),
		leased.Command(),
		gatewayd.Command(),
		natsCommand(),
		bench.Command(),
	}
}

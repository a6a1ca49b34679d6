// Command consensusd runs one member's share of the order.
package main

import (
	"github.com/quartet-kv/quartet/consensusd"
	"github.com/quartet-kv/quartet/services/daemon"
)

func main() { daemon.Main(consensusd.Command()) }

// Command gatewayd is the etcd face of a Quartet cluster, as a process.
package main

import (
	"github.com/quartet-kv/quartet/gatewayd"
	"github.com/quartet-kv/quartet/services/daemon"
)

func main() { daemon.Main(gatewayd.Command()) }

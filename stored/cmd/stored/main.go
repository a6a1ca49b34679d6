// Command stored is the daemon of the state, in a process of its own.
package main

import (
	"github.com/quartet-kv/quartet/services/daemon"
	"github.com/quartet-kv/quartet/stored"
)

func main() { daemon.Main(stored.Command()) }

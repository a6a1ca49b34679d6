// Command leased runs the lessor beside one member.
package main

import (
	"github.com/quartet-kv/quartet/leased"
	"github.com/quartet-kv/quartet/services/daemon"
)

func main() { daemon.Main(leased.Command()) }

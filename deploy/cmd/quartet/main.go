// Command quartet is every part of Quartet in one program: a whole cluster for
// the first five minutes (up), one member in etcd's place (member), each daemon
// alone, and the tools around them.
package main

import (
	"runtime"

	"github.com/spf13/cobra"

	"github.com/quartet-kv/quartet/services/daemon"
)

func main() {
	daemon.Main(command())
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "quartet",
		Short:         "A strongly consistent key-value cluster that speaks the etcd v3 API",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       versionText(),
	}
	root.SetVersionTemplate("{{.Version}}")
	root.AddCommand(commands()...)
	return root
}

// versionText is what --version prints: etcd's line first, since scripts look
// for it.
func versionText() string {
	return "etcd Version: " + etcdVersion + "\nQuartet Version: " + version + "\nGo Version: " + runtime.Version() +
		"\nGo OS/Arch: " + runtime.GOOS + "/" + runtime.GOARCH + "\n"
}

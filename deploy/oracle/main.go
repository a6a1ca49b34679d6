// Command oracle is the real etcd that Quartet is held against: etcd's own
// main, at a pinned version, in a module of its own so that none of etcd's
// server dependencies reach Quartet's builds.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}

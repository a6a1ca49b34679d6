// Package gatewayd is the etcd face of a Quartet cluster. A gateway owns
// nothing: any of them can be killed or added at any moment.
//
// # Paths
//
//	put      internal/kv/put.go: check → propose → answer
//	range    internal/kv/range.go: check → floor → read → answer
//	watch    internal/watch: bus → ring → watchers
//	lease    internal/lease: grants through the log, keep-alives to the lessor
//
// # Life
//
//	New       listens, asks nobody
//	Run       directory → choose the member to speak for → session, read
//	          index, reader, renewer → watch hub, bus → gRPC server, health
//	ctx ends  streams end, calls end or are cut off after a grace → hub, bus
//	          → session (closed in the log) → directory
//
// Until the directory has seen a member, clients' connections wait unaccepted.
package gatewayd

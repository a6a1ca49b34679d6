// Package daemon is what every daemon runs on: flags and their environment
// twins, configuration checked before anything is opened, logs, metrics, a
// gRPC server with health, signals, and a life cycle.
//
// # Life cycle
//
//	Command  parse flags, then QUARTET_<NAME>_<FLAG> for flags not given
//	         validate: every violation at once, nothing opened yet
//	         build the Service
//	Serve    listen → register → run (health SERVING) → ctx ends
//	         → the Service's Run returns → the gRPC server stops
//
// A Service's Run blocks; cancelling its context is the only way to stop it,
// and it stops in the reverse order of its start. The first error ends the
// process with status 1: a daemon does not limp.
//
// The same Service runs in any composition: Command gives it a process of its
// own; deploy/allinone runs several in one process on an inproc.Fabric.
package daemon

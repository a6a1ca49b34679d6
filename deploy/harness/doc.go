// Package harness starts a cluster, Quartet in any of its compositions or a
// real etcd, behind one type, so that one test or one benchmark runs unchanged
// on all of them.
//
// # Promise
//
// Start returns a cluster that answers a linearizable read on every endpoint,
// or an error that carries the tail of every process's log. Everything runs on
// the loopback interface, on ports that were free, in a directory of its own.
// Close leaves no process behind, and neither does the death of the test
// binary: every process is a group of its own that the kernel kills with its
// parent.
//
// # Kinds
//
//	up       one `quartet up` process: the whole cluster in it
//	compact  one `quartet member` process per member
//	split    `quartet up --split`: a process per daemon, and NATS
//	etcd37   etcd 3.7.3, built from deploy/oracle; one process per member
//	etcd34   the etcd on the PATH (Debian's 3.4); one process per member
//
// In every kind the servers are processes and the caller is another one, so
// that what a server costs can be read from /proc without the client's share.
//
// # Processes
//
// A process is addressed by name: quartet (up), m1 m2 m3 (compact and etcd),
// and in split the names of processes.tsv (consensusd-1 stored-1 leased-1
// gatewayd-1 nats ...) below the supervising process quartet. Kill, Pause,
// Resume and Restart act on one of them. A daemon of split that was killed is
// started again by its own command line, as an operator would do it; it is then
// a child of the harness.
//
// # Invariants
//
//  1. Every wait takes a context and is bounded besides (readyWithin, exitWithin).
//  2. Readiness is a condition that was seen (the ready line, a linearizable
//     read), never a pause.
//  3. No process outlives Close.
//  4. One goroutine, locked to its thread, starts all processes of a cluster: the
//     kernel sends the parent-death signal when the *thread* ends that forked.
package harness

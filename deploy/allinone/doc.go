// Package allinone composes daemons inside one process: a whole cluster (Up),
// or one member of a cluster of processes (Member).
//
// The daemons are those of the split cluster, unchanged. Each is given
// addresses and a Dialer; here the Dialer is an in-process fabric laid over the
// network, so that a call to an address served in this process is a function
// call and any other is gRPC.
//
//	Up      every daemon of every member at an address of its own on the fabric;
//	        the bus is in memory; only gateways listen
//	Member  one member's daemons at its peer address, on the fabric for each
//	        other and on a listener for the other members; the gateway follows
//	        its own store instead of a bus
//
// Both run in stages (log, state, time, face) and stop in reverse.
package allinone

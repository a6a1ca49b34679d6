// Package split runs a cluster with every daemon as a process of its own: a
// cluster to kill pieces of.
//
// Every process is this program again with a daemon's command line. Addresses
// are chosen free on the first start and kept in processes.tsv, since members
// remember each other by them; a later start uses the same. The table names for
// each process its pid, address and full command line, so that a person can
// kill, pause, and start it again by hand.
//
// A process that ends is not started again. All are ended with this one: asked
// to in the reverse order of the start, killed after a grace, and killed by the
// kernel if this process dies without a word.
package split

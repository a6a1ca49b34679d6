// Package session is the client's side of the session protocol: commands that
// are applied exactly once, whatever fails between the proposer and the stores.
//
// A Session numbers its commands and proposes them to whoever leads; every store
// applies a number once and skips it ever after. So whoever is in doubt (a
// leader changed, a stream broke, a store died) simply proposes again, and a
// client sees latency instead of an error.
//
// # Stages of a command
//
//  1. Queue: Propose appends it to the queue. A command in the queue has no
//     number; when its caller gives up it is withdrawn.
//  2. Gather: whenever fewer than InflightPayloadsMax payloads are unanswered,
//     the sender takes what gathered, gives it the next numbers, and sends it
//     as one payload. There is no timer: load makes batches.
//  3. In flight: it is kept until its outcome comes, whatever its caller does.
//     Each new stream to a leader begins with the first command in flight.
//  4. Outcome: the receiver reads outcomes in order of their numbers from one
//     store, the leader's by preference, and from the next one when that store
//     breaks, lags or has lost an outcome.
//
// # Invariants
//
//  1. Numbers in flight are consecutive: first, first+1, ..., next-1. Everything
//     below first is answered (the acked of each payload).
//  2. A stream's payloads carry consecutive numbers from first (as of its start)
//     on, none left out. So a log has a gap only if consensusd took a payload
//     after refusing one.
//  3. A number that was sent is never given to another command.
//  4. A command leaves flight only by an outcome, by being lost at every store,
//     or with its evicted session.
//  5. After an eviction, a command that was never sent moves to the new session.
//     So does one that was sent once and whose outcome says "unknown session",
//     and whatever was sent once behind it. Every other one is answered with
//     etcd's open error.
//
// # Goroutines
//
// Run owns two loops. The propose loop follows the leader, with a sender and a
// receiver per stream; the outcome loop follows a store, with a receiver per
// stream. All share the window (window.go), which is guarded by one mutex; no
// I/O is done under it.
package session

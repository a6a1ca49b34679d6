// Package kv is etcd's KV service on the circle.
//
// # Stages of a write (put.go, delete.go, txn.go, compact.go)
//
//	check    what can be seen without state: shape, limits, duplicate keys
//	propose  the request's own bytes, through the session, exactly once
//	answer   a complete header in front of the outcome's bytes
//
// # Stages of a read (range.go, stream.go, txn.go)
//
//	check    as above
//	floor    a read index for a linearizable read; for every read the revision
//	         that the gateway has answered with
//	read     the request's own bytes, at a store that has reached the floor;
//	         what is large is asked for again as a scan, in chunks
//	answer   a complete header in front of the bytes
//
// No handler decodes what a store answers.
//
// # Invariants
//
//  1. A request is checked exactly as etcd's v3rpc layer checks it, in the same
//     order, so that of two faults the same one is named. What depends on state
//     (revisions, leases, keys to be there) is the store's to refuse.
//  2. A linearizable read is never served below a read index asked after it
//     arrived.
//  3. Headers inside a transaction's responses are the store's; only the
//     outermost one is written here.
package kv

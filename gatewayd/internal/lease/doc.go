// Package lease is etcd's Lease service: grants and revokes go through the log
// like any write, all that depends on time goes to the primary lessor.
//
// # Paths
//
//	grant, revoke   check → propose → header (lease.go)
//	keep-alive      client streams → one queue → one stream to the primary
//	                lessor, in batches → each client stream in order
//	                (keepalive.go, renewer.go)
//	time to live    a linearizable read of the record, then the primary's clock
//	leases          the primary's list
//
// # Finding the primary (primary.go)
//
// The lessor that answered last is asked first, then the one beside the raft
// leader, then the others. One that is not primary says so and the next one is
// asked, with pauses, for as long as the request may take: somebody is about to
// claim. When not a single lessor can be reached the answer is Unavailable at
// once, so that the client tries another endpoint.
//
// # Invariants
//
//  1. Responses of one client stream are in the order of its requests.
//  2. A keep-alive whose fate is unknown is simply asked again: renewing twice
//     is renewing.
//  3. A half-closed stream is answered to its end, and then ends without error.
//
// # Goroutines
//
// Renewer.Run owns the queue's consumer and one receiver per upstream stream.
// Each client stream has its handler, which sends, and one receiver.
package lease

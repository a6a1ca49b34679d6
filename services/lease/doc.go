// Package lease is the promise of the Lessor service, which leased keeps: a
// lease lives at least as long as was acknowledged. Whoever serves
// leasepb.LessorServer keeps what is written here, and leasetest.Run checks
// that it does.
//
// An error below is one of package errs; errors.Is finds it. Any call may also
// end with ErrStopped (the lessor is shutting down), with Unavailable (it
// cannot be reached, or vanished) or with the end of the caller's context.
//
// # Leases
//
// A lease is a record in the replicated state: an id, the seconds that it was
// granted, and the index of the entry that granted it, which tells one life of
// an id from the next. Grant and revoke are commands (LEASE_GRANT,
// LEASE_REVOKE), proposed by whoever wants them; this service is about time
// only. While a lease exists, it and its keys do so until a command removes
// it; the lessor removes it by LEASE_EXPIRE when its time has passed.
//
// # Primary
//
// One lessor per cluster is primary: the one whose LESSOR_CLAIM is the current
// claim in the state. Its claim's index is the fence that its expiries and
// checkpoints carry; those of an older claim are refused by every store. So
// there may be two that believe to be primary, for a moment, and only one of
// them can change anything.
//
//  1. A lessor that is not primary answers KeepAlive, TimeToLive and List with
//     ErrNotPrimary. Ask another; likeliest is the one beside the raft leader.
//     While nobody is primary, somebody is about to be.
//  2. On becoming primary, a lessor gives every lease its full time again, or
//     what its checkpoint left of it, and a grace on top.
//
// # KeepAlive
//
// Each message of a stream renews the leases it names and is answered by one
// message, in the order sent.
//
//  1. A TTL above 0: the lease existed when the message arrived or later, and it
//     will not expire for that many seconds from when the answer was given.
//  2. TTL 0: the lease did not exist, or its expiry was under way. It is not
//     known to have been removed, and no keep-alive has prolonged it.
//  3. ErrNotPrimary ends the stream: nobody knows whether what was not answered
//     has prolonged anything. Send it again, to the primary.
//  4. InvalidArgument: too many leases in one message. ErrTooManyRequests: too
//     many messages wait.
//
// An answer is based on a linearizable read: a lease that was revoked before
// the message was sent is never renewed, on whichever lessor. Without a leader
// a message waits, and its leases do not expire for some seconds meanwhile.
//
// # TimeToLive and List
//
// Both are linearizable as KeepAlive is, and prolong nothing. Remaining time is
// in milliseconds, 0 or more while the lease exists (also when its expiry is
// under way), never above what was granted, and -1 when the lease does not
// exist. List is sorted by what remains, then by id.
//
// # GetStatus
//
// Never fails on a lessor that runs: whether it is primary, and the claim and
// claimant that it last saw in the state.
package lease

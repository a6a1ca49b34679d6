// Package lessor is the one who owns time: it knows every lease, renews and
// expires them while it is primary, and claims that place by a rule.
//
// # Promise
//
// A lease lives at least as long as was acknowledged, counted from when the
// acknowledgement was given; and the lessor changes the world only by
// proposing, under the fence of its claim.
//
// # Stages
//
//	feed     own store's lease records, then every change, each with a position
//	claim    rule (below) → LESSOR_CLAIM → its entry's index is the fence
//	promote  the feed shows the own claim → every lease gets its time again
//	renew    arrive → ask a read index → wait for the feed → clear checkpoints
//	         → answer, whole messages in the order in which they came
//	expire   due → one LEASE_EXPIRE for many → the feed shows them revoked
//
// # The rule of claims
//
//  1. The lessor beside the raft leader claims, once in each term.
//  2. A lessor that finds its own member's older claim claims anew.
//  3. Any other claims when the primary was silent for SilenceMax and a moment
//     more by its rank among the others. Silent is who does not answer
//     GetStatus, or answers that it is not primary under the current claim.
//
// A claim says which one it saw; so of two that collide one is refused, and
// sees the other in its feed. A lessor beside the leader that lost its place
// within a term does not take it back by rule 1, so two that cannot see each
// other do not take turns.
//
// # Invariants
//
//  1. primary implies that the feed is complete and shows the own claim.
//  2. A renewal is answered by a read index that was asked after it arrived and
//     at most ackAgeMax ago, at a feed that has reached it. So a claim that was
//     committed before the renewal arrived is seen, and a later one gives every
//     lease its time again from then on, and grace on top, which covers that age.
//  3. A lease for which an expiry may be under way is not renewed: it is
//     answered with TTL 0.
//  4. A lease with a checkpoint is renewed only after the checkpoint was cleared
//     in the state, since the next primary would count from it.
//  5. Time (machine.now) advances by at most passMax between two passes. What a
//     pause took beyond that, every lease gets back: a process that slept
//     expires nothing on waking.
//  6. A renewal that has arrived holds its lease for holdMax, so that leases do
//     not expire while nobody leads and their owners do what they should.
//
// # Goroutines
//
// Lessor.Run owns the machine and is the only one to touch it; it reads the
// clock once per pass. A goroutine follows the feed and one is made per
// question that is under way (proposal, read index, probe); all come back to
// Run by its inbox. The machine has no clock, no I/O and no goroutine: it takes
// messages and leaves effects.
package lessor

// Package cluster is the directory of one cluster: who its members are, where
// their daemons answer, and who leads.
//
// Whoever is outside consensusd (gatewayd, leased, a session) needs the same
// three answers: which member leads, at which term, and how its daemons are
// reached. A Directory gives them without asking anybody at the time of the
// question.
//
// # Stages
//
//  1. Observe: one stream to each member's consensusd, the configured seeds
//     first, then every member that a Status names. A broken stream is opened
//     again with a growing pause.
//  2. Merge: the statuses of all members become one View. The highest epoch
//     wins, then the highest term; a status of another cluster is refused.
//  3. Publish: the View replaces the one before, and the channel of Changed
//     closes.
//
// # Invariants
//
//  1. A View never changes after it was published.
//  2. {Epoch, Term} of successive Views never goes down.
//  3. A term is led by the one that its members name; the word of the leader's
//     own consensusd, while it is reachable, is the last word for its term. So
//     a leader that is paused or cut off is dropped as soon as any member is
//     seen at a higher term.
//  4. The members are those of the most advanced status, never a mixture.
//
// # Goroutines
//
// Run owns all state but the published View; each observer has one goroutine
// that hands statuses to Run by channel.
package cluster

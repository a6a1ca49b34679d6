// Package consensus is the promise of the Consensus service, which consensusd
// keeps: what it delivers is committed, in one order, for ever. Whoever serves
// consensuspb.ConsensusServer keeps what is written here, and
// consensustest.Run checks that it does. The package also holds what clients of
// the service share (ReadIndexer).
//
// An error below is one of package errs; errors.Is finds it. Any call may also
// end with ErrStopped (the member is shutting down), with Unavailable (it
// cannot be reached, or vanished) or with the end of the caller's context.
//
// # Positions
//
// The log is a sequence of entries at indexes 1, 2, 3, … of one epoch. An entry
// has an index, the term in which it was proposed, and a payload, which is
// empty for entries that the cluster made for itself. Entries that have been
// delivered, anywhere, never change. Terms never fall from one entry to the
// next.
//
// # Propose
//
// A stream is bound to one term that the member leads. The member answers once,
// with that term, and then takes requests.
//
//  1. Not leading, or leading without an entry of the own term delivered yet: the
//     stream ends with ErrNotLeader before any answer. Ask Observe who leads.
//  2. Taken: each payload becomes one entry, in the order sent, all in the stream's
//     term. There is no acknowledgement: that an entry is committed is seen where
//     it is delivered.
//  3. Refused: the stream ends, with ErrTooManyRequests (too much is uncommitted,
//     or the log is at its cap because some member's store has not synced for
//     long), with ErrPayloadTooLarge, or with ErrNotLeader. Of the refused request
//     and of everything sent after it nothing is taken. So the entries of one
//     stream are a prefix of what was sent, in requests that are taken whole but
//     for the case below.
//  4. The term ends: the stream ends with ErrNotLeader. What was taken may be
//     committed, or lost, by the entry: a prefix survives. It cannot be told which
//     one until an entry of a later term is delivered.
//
// Whoever must not lose or repeat a payload numbers it and, on every new
// stream, begins again with the first one not seen delivered.
//
// # ReadIndex
//
//  1. A position: every entry that was delivered anywhere before the call is at or
//     below its index. Whoever has applied it may serve a linearizable read that
//     was asked before the call. The term is the leader's and also the position's.
//  2. ErrNotLeader: the member does not lead, or stopped leading while it asked its
//     peers. There is no position without a quorum.
//  3. ErrTooManyRequests: more callers wait than the member holds.
//
// A leader that cannot reach a quorum answers nothing until it notices, within
// an election timeout, that it does not lead; callers bound their wait.
//
// # Deliver
//
// The first message names the store and the position up to which it has
// applied; then committed entries come, every index once and in order, starting
// after that position.
//
//  1. A first response comes at once, with or without entries, and says the
//     cluster, the epoch, the term and whether the store is to publish. Later ones
//     bring entries as soon as they are committed and on this member's disk, or a
//     change of term or of the publishing.
//  2. ErrLogMismatch: the position is not in this log's history (another cluster,
//     another epoch, another term at that index). The store must discard itself.
//  3. ErrLogTruncated: entries after the position are gone; also for an empty store
//     (index 0) beside a log that does not begin at 1. The store must fill itself
//     from another store. It may also come later on a stream.
//  4. ErrNotReady: the position is beyond what this member knows to be committed,
//     and stayed so for a few seconds. A store that is ahead of the log must not
//     serve; it asks again, here or at another member.
//  5. InvalidArgument: the first message lacks the start or the store's name.
//  6. ErrTooManyRequests: too many stores.
//
// A store that does not receive holds up nobody but itself: entries wait in the
// log. The log is truncated only below what every member's store has reported as
// synced; a store reports its progress on the same stream, as often as it likes,
// and never more than it would find again after a power cut.
//
// Publish is said to the stores of one member, which the leader chooses: its own
// if a store is attached to it, else the one whose store is furthest. While a
// choice changes there may be two, or none for about a heartbeat.
//
// # Observe and GetStatus
//
// Observe sends the member's view at once, and again after each change of role,
// term, leader, members or publisher; changes in quick succession may be shown
// as one. GetStatus answers with the same view. Positions (first, last, commit,
// applied, synced) are those of the moment of sending. A member is called leader
// (by itself and by others) only after an entry of its own term was delivered
// by the member that says so; until then leader is 0.
package consensus

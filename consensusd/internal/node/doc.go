// Package node runs raft for one member: it takes proposals, agrees with the
// peers, and hands over what is committed. The raft library appears here, in
// transport (its messages) and in raftlog (its entries), and nowhere else.
//
// # Path
//
//	Propose ─┐                                   ┌─ messages ─▶ transport ─▶ peers
//	ReadIndex┤                                   │
//	Receive ─┼─▶ the loop: step ─▶ propose ─▶ ready ─ append ─▶ appender ─▶ storage
//	tick ────┤     ▲                             │                │ one fdatasync for
//	stored ──┘     │                             └─ committed ─▶ deliver.Hub   all that gathered
//	               └──────── acknowledgements ◀───────────────────┘
//
// The loop takes whatever gathered in its channels, steps raft once for it, and
// gives away what raft wants done. It never touches the disk for writing and
// never waits for the network or a store, so heartbeats are sent on time
// whatever the disk does. It reads the log only for what a follower or the
// delivery of committed entries needs; the storage keeps the recent tail in
// memory.
//
// # Invariants
//
//  1. Only the loop touches the raft state, and the fields of Node that are
//     marked so.
//  2. Nothing that depends on an append (a vote, an acknowledgement) leaves before
//     the append is on disk: the appender sends it, in order.
//  3. An entry is proposed only while the member leads the term that its stream is
//     bound to, compared in the loop at the moment of proposing. When one request
//     of a stream is refused, no later one of it is taken.
//  4. Nobody is called leader, and no read index is asked of raft, before an entry
//     of the current term has been handed to the Hub. (Raft itself answers a lone
//     voter at once, when after a restart its commit index may lag behind.)
//  5. A read index round uses a new context for every try and ends with the term.
//     Whoever asks while a round is out waits for the next one.
//  6. Committed entries are on this member's disk before they are handed over.
//  7. The log is truncated only below what every member has in its log and has
//     synced in its store, as last reported; a member that has not reported holds
//     everything. At the hard cap proposals are refused instead.
//  8. After a failed append nothing is acknowledged any more: Run returns the
//     error.
//
// # Goroutines
//
// Run owns two: the loop (its own) and the appender. Propose, ReadIndex and
// Receive run on their callers' and meet the loop in bounded channels.
//
// # Start and stop
//
// An empty log is begun with entries that add the first members; they are
// committed by definition, the same on every member. A lone voter campaigns at
// once. Several voters that have greeted each other, of whom none has heard of
// a leader, campaign in the order of their ids, a few ticks apart (with
// pre-vote, so that a leader that exists is not disturbed) rather than wait out
// the election timeout. When its context ends, a leader hands over to the
// furthest follower, within one election timeout and five seconds, and then
// stops.
package node

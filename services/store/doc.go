// Package store is the promise of a store, and the side of it that asks: Reader
// reads small things at the best store (reader.go).
//
// A store is a pure function of the log. Give two stores the same log and they
// answer every question about a position in the same way, whatever engine they
// keep their rows in, however often they were killed and started again, and
// however entries were batched on the way. storetest holds them to it.
//
// # What a store promises, call by call
//
// Outcomes. Every command that a session proposed has one outcome, the same at
// every store, and the stream tells each number above AfterSeq once and in
// order. Four things may happen to a number:
//
//   - APPLIED with an empty error: Revision is the store's after it, Body the
//     etcd response without header.
//   - APPLIED with an error: decided and refused, in etcd's words; nothing
//     changed. Error is also errs.ErrUnknownSession's text for a command that
//     was refused since its session was not open; such a number may come again.
//   - LOST: it was applied and this store no longer knows how it ended, for
//     instance since it was started after that. Another store may.
//   - GAP: it was refused since a number before it has not come. The proposer
//     starts over with the first number that is not answered.
//
// The first message comes at once and names the session. The call waits for a
// session that the store has not heard of yet; it ends with
// errs.ErrUnknownSession for one that is closed, after what is still known of
// it was sent.
//
// Read. Each read of a batch is answered once, from a state at or beyond the
// batch's position and revision: RANGE and TXN as of one revision, which the
// answer names. Large says that the answer is to be asked of Scan. The store
// waits for its state as long as the stream lives; a position of an older epoch
// is refused with errs.ErrNotReady.
//
// Scan. The range at one revision, in key order unless the request sorts, in
// chunks of at most ChunkBytes (one key may exceed it). The last chunk has more
// and count. etcd's errors are the call's; ErrCompacted may come between chunks.
//
// History. Every event of the range from From to To, as it was published:
// revisions ascending, events in the order of their operations. Through says how
// far the reader is, also where nothing matched. A delete at the compact revision
// is there. PrevKv is absent where the previous revision is compacted.
//
// Follow. Every batch that is applied after a position, in order and without a
// gap, and a heartbeat every 100 ms while there is none; errs.ErrFollowBehind
// when the batches after the position are no longer in memory. The zero position
// is answered with a heartbeat that says where the store stands.
//
// Leases. Every lease as of a position, then each change, in order; positions
// move on with every applied batch, changes or not. It ends with
// errs.ErrFollowBehind for a caller that does not keep up.
//
// Hash. Equal on every store at the same revision and compact revision.
//
// WaitCompacted returns when what a compaction made unreachable was given up.
//
// # What it does not promise
//
// Follow and Outcomes tell what is applied, which is committed in the log but
// may not be in the engine yet; after a power cut the store applies it again. A
// store that is behind answers questions without a position from where it is:
// whoever must not see time go back passes the revision that it has seen.
package store

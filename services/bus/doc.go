// Package bus spreads the news of what stores applied, to any number of
// receivers, and makes of that lossy news a sequence without loss.
//
// The bus is an arrow, not a truth: delivery is at most once, and everything
// that Quartet promises holds with the bus stopped. What makes that so is that
// every batch says where it stands ({epoch, index, term}, the index and the
// revision before it), that an idle publisher says so every HeartbeatEvery, and
// that every store can be asked for what is missing.
//
// # Stages
//
//  1. Publish: the store that the leader named says what each applied batch
//     changed. There may be two such stores for a while.
//  2. Hear: a Subscription queues what arrives, bounded in batches and bytes.
//     What does not fit is dropped and ErrLapsed stands in its place.
//  3. Read: a Reader takes a batch iff prev_index <= mine < at.index, leaves out
//     the revisions that it has, and hands it to its Sink.
//  4. Pull: a gap, a lapse, silence, or a Sink that wants to be further makes
//     the Reader follow a store as well, until bus and position meet again.
//  5. Reset: where no store has the missing part in memory, or history was
//     rewritten, the Sink is told to fetch the state instead.
//
// # Invariants
//
//  1. What a Sink accepts is contiguous: each batch begins where the one before
//     ended, or a Reset lies between them.
//  2. A Sink sees no revision twice, and none of another cluster.
//  3. Within an epoch a Sink's position never goes back, unless the store's
//     history contradicts it.
//  4. A publisher never waits for a receiver.
//
// # Implementations
//
// memory joins daemons of one process, nats joins processes, follow needs no
// bus at all: it listens at one store. bustest.Run is the suite that all three
// pass.
package bus

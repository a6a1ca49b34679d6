// Package mvcc reads the state: at the present, and at any revision that is
// kept.
//
// There are two sources. The keyspace holds the present generation in memory
// and is as far as the apply loop; the engine holds every version and is a
// batch or two behind. A revision is read from the keyspace where that knows
// the answer, and else from the engine at the stamp that made the revision,
// after waiting until the engine has been given that stamp. Both give the same
// answer, only at different cost.
//
// # Stages of a read
//
//  1. Wait until the asked position is applied (State.Wait).
//  2. Fix the revision: the asked one, checked against the present and the
//     compact revision, or the present one.
//  3. Read: points by hash, ranges in chunks from the keyspace; what changed
//     since the revision, or is not known in memory, from the engine.
//  4. Check again that the revision was not compacted meanwhile; a read that
//     ran beside a purge may have missed rows, so its answer is ErrCompacted.
//
// # Invariants
//
//  1. A View is published after everything that it names was applied to the
//     keyspace, and never changes.
//  2. All parts of one answer are of one revision, and that revision is what
//     the answer says.
//  3. Nothing here holds a lock while it waits or reads the engine; readers
//     pin nothing.
package mvcc

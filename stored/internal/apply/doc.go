// Package apply is the state machine: what a store's state is after each entry
// of the log. It is a pure function of the log. It reads no clock, draws no
// random number, starts no goroutine, and does no I/O but asking the engine for
// what the keyspace does not know.
//
// # Stages of a command
//
//  1. Decode: the entry's payload becomes the commands of one session. They are
//     not copied; whatever is kept is.
//  2. Session rule: a number at or below the session's last is skipped, the
//     next one is applied, one beyond is refused as a gap.
//  3. Stamp: the command takes the next stamp, whether or not it writes.
//  4. Evaluate: compares, previous versions, key ranges, all against the state
//     below the stamp. It may refuse the command with etcd's error; then
//     nothing was written.
//  5. Write: all changes of a command make one revision. They go to the
//     keyspace, at once visible to readers, and as rows at the stamp into the
//     open batch, which the pipeline commits to the engine.
//  6. Outcome: what is told to the proposer. Ranges within a transaction are
//     only validated here; they are read when the outcome is sent, and only
//     where somebody asks for it.
//
// # Invariants
//
//  1. Indexes are contiguous; stamps and revisions never go down, and a revision
//     is made by exactly one stamp.
//  2. Reads are at the stamp below the command's own: from the keyspace, which
//     holds all that the engine has not got yet, or from the engine at the stamp
//     that it was committed to. Never "the newest row", since rows of an earlier
//     life may lie above.
//  3. A command that fails changes nothing but its session's number.
//  4. Whatever the payload holds, every store comes to the same result: a
//     payload that cannot be decoded is an entry without commands, a body that
//     cannot be is a refused command.
//  5. A lease that expires with others takes a stamp of its own, as each makes
//     a revision of its own.
//  6. The constants below that bound state (sessions, keys) are part of the
//     function: changing one needs a new epoch.
//
// # Memory
//
// Sessions are all in memory, bounded in number. Lease records are, as they are
// asked for. Keys are where the keyspace has them. Rows wait here until the
// engine has them.
//
// The apply loop of the pipeline owns a Machine; nothing in it is safe for
// another goroutine.
package apply

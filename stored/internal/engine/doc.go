// Package engine is the promise that a storage engine makes to a store: rows,
// each written at a stamp, readable at any stamp that was not purged.
//
// A store applies the log and writes what each command changed as rows at that
// command's stamp. Durability is the log's business, not the engine's: an
// engine may lose what was committed since the last Sync, wholly or with
// holes, and a store replays the log from there. So a commit costs no fsync.
//
// Invariants, which enginetest checks on every engine:
//
//  1. A read at stamp S returns, for each key, the newest version at or below
//     S. Versions above S never show, whether they were committed, replayed or
//     left over from before a crash.
//  2. When Commit returns, its rows are readable by everyone.
//  3. When Sync returns position P, all rows at or below P.Stamp survive a
//     power cut, and Synced() of the next life is P or a later Sync's.
//  4. Rows above Synced().Stamp may be there after a crash, any of them. Apply
//     reads only at stamps below its own, so it never sees one before it wrote
//     that same row again; writing a version again replaces it.
//  5. Bytes that are not what was written are an error of the read, never an
//     answer.
//  6. After a failed Commit, Purge or Sync the engine refuses everything.
//
// Who owns which goroutine: the apply loop calls Commit; a sync loop calls
// Sync and Purge; any goroutine reads. Engines own the goroutines of their
// compactions and end them in Close.
//
// Layout and on-disk format are each engine's own: see the package comments of
// badger and memory.
//
// # What it costs
//
// Processor time of badger in its default profile, background work included,
// by its benchmarks: 50,000 keys of 256 B with 4 versions each, a put being the
// key's row and a history row. Measured on 2 cores of which each had ten
// runnable threads, so twice to three times what a quiet machine would show:
// compare them with one another only.
//
//	put, 128 of them in one Commit      15 µs (half of it Badger's skip list)
//	Get of a key's newest version       40 µs
//	iterate, a key                      3.3 µs, 3.1 µs without its value
//	Sync after 1 MB                     47 ms of waiting
//	open, after a clean Close           0.45 s of waiting
//
// So whatever a put asks must not be asked of the engine: that is why there is
// a keyspace. A clean or killed process opens in the time it takes to read its
// write-ahead files, at most the memtables of the profile (3 × 32 MB).
package engine

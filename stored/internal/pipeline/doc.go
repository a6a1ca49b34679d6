// Package pipeline carries entries from consensusd through apply into the
// engine, and what came of them to those who wait for it.
//
//	consensusd ──Deliver──▶ receive ──▶ apply ──▶ view, outcomes, ring, leases
//	     ▲                                │ open batch
//	     │ applied, synced                ▼
//	  report ◀── sync (fsync) ◀────── commit (engine)
//
// Nothing waits for anything that it does not need. What was applied is told at
// once: the log is the truth, and the keyspace can be read. Meanwhile its rows go
// to the engine; whatever is applied while one batch is being committed is the
// next batch. The engine is synced every SyncEvery or SyncBytes, which bounds
// what a start replays.
//
// # Invariants
//
//  1. Entries are received once and in order: each stream starts after the last
//     entry that was received.
//  2. The open batch is bounded: beyond BatchBytesMax nothing is applied until
//     the engine took the batch before it, and then nothing is received.
//  3. What is reported as synced survives a power cut.
//  4. A failed commit or sync ends the store.
//
// # Goroutines
//
// Run owns four: receive (with a reporter per stream), apply, commit, sync. The
// apply loop owns the Machine and everything that it tells.
package pipeline

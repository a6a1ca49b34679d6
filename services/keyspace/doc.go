// Package keyspace holds the current generation of all keys in memory, within
// a budget: what every put asks (previous version, create revision, lease) by
// hash, ranges and counts by an ordered copy.
//
// It never is the truth. An engine (or another store) has all of it and all of
// history; every answer here is either the same or "not known". So nothing
// waits for it to be filled, and giving it up costs time only.
//
// Stages:
//
//  1. Filling. Started empty beside an engine that is not, it is filled in key
//     order in the background while writes go on. Ranges below the cursor are
//     known already; deleted keys are remembered so that the fill does not
//     bring them back.
//  2. Complete. Every point, range and count is known.
//  3. Partial, for good, once the budget is spent: the ordered copy is gone;
//     points stay while there is room, those not yet in the engine always.
//
// Invariants:
//
//  1. A known answer equals the engine's at the revision that comes with it.
//  2. Readers see a command's writes all or not at all.
//  3. An item that changed after the revision that a reader reads at is handed
//     to it as such, deleted ones too, or the whole range is "not known".
//  4. Bytes() stays within the budget but for what is not in the engine yet.
//  5. No reader holds the lock for longer than one look-up or ChunkMax items.
//
// The one writer (the apply loop) owns changes, one goroutine fills, any number
// read. There are no goroutines of its own.
//
// A key costs 146 B beside its own bytes and its value's. Processor time at
// 1,000,000 keys, by the benchmarks, on 2 cores of which each had ten runnable
// threads (a quiet machine needs less): overwrite with the look-up before it
// 1.2 to 1.6 µs and no allocation, look-up 1.8 µs, create and delete 11 µs
// each, count of any range 8 µs, 1000 items of a range 0.4 ms.
package keyspace

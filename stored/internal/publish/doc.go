// Package publish spreads what was applied: to the bus while this store is the
// named publisher, and to whoever follows it over gRPC at any time.
//
// Every batch of entries that the apply loop went through becomes one
// buspb.Batch, empty ones too. Recent ones stand in a ring bounded in bytes; the
// bus and each follower have a cursor in it. Events are encoded by the apply
// loop, once; everything here passes pointers.
//
// # Invariants
//
//  1. The ring is contiguous: each batch's previous position is the position of
//     the one before it.
//  2. A follower gets every batch after its position, or errs.ErrFollowBehind.
//  3. Nobody who reads the ring can hold up the apply loop.
//  4. While nothing is applied, the publisher says so every HeartbeatEvery, and
//     so does each follower's stream.
//
// # Goroutines
//
// The apply loop adds. Run publishes to the bus. Each follower is served by its
// gRPC handler.
package publish

// Package deliver hands committed entries to stores: every index once and in
// order, from the position that a store names, at the store's own pace.
//
// # Path
//
//	raft loop ──Advance──▶ Hub: the ring of recent entries, bounded in bytes
//	                        │ wake
//	                        ▼
//	            one goroutine per stream: ring, or the log when the store is
//	            behind the ring ──▶ batch, bounded in bytes and entries ──▶ store
//	                        ▲
//	store ──progress────────┘ applied and synced, which bound truncation
//
// # Invariants
//
//  1. Only entries up to Hub.ready are sent: committed, and on this member's own
//     disk.
//  2. The ring is contiguous and ends at ready. Whatever is older is in the log,
//     since the log is truncated below what the stores have synced.
//  3. A stream's batches are contiguous: the first entry of each follows the last
//     of the one before, and the first of all follows the position that the store
//     named, whose term was compared with the log's.
//  4. Advance and SetState never wait for a stream: they take the lock for a few
//     pointer moves and leave a token in each stream's wake channel.
//
// # Goroutines
//
// Advance and SetState are called by the raft loop only. Each stream is served
// by the goroutine of its gRPC handler and has a second one that receives the
// store's progress; both end with the stream.
//
// # Memory
//
// An entry is converted once and shared by the ring and all streams; its
// payload is raft's own. Nobody may write to either.
package deliver

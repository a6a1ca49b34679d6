// Package read answers questions about the state: many small ones per message,
// large ranges in chunks, history, hashes.
//
// # Path of a small read
//
//	ReadBatch ──▶ reached? ──yes──▶ evaluate each ──▶ ReadResults
//	                │ no
//	                └─▶ a goroutine of its own waits, evaluates, answers
//
// # Invariants
//
//  1. A batch is answered from a state at or beyond its position and revision.
//  2. An answer is of one revision (see mvcc) and was not compacted when it was
//     given.
//  3. No answer exceeds SmallBytesMax; a larger one says so and is asked of Scan,
//     which holds a chunk at a time, whatever the range.
//  4. At most half of the cores scan at any time, chunk by chunk.
//
// # Goroutines
//
// Each call is served by its gRPC handler; a Read stream has at most waitingMax
// more for batches that wait.
package read

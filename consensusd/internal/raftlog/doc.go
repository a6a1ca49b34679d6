// Package raftlog is the durable log of one member: raft's entries, its hard
// state, and the position (with conf state and members) below which the log
// was truncated.
//
// # Promise
//
// What Append returned nil for survives a power cut, or Open says that it does
// not: a log that lost something acknowledged is refused, never repaired. Any
// kept entry can be read without the log being held in memory.
//
// # Stages of a write, in order
//
//	Append → encode (one buffer) → maybeRotate → write (one WriteAt)
//	       → sync (one fdatasync, when raft.MustSync asks for it) → publish
//
// and of a read:
//
//	Entries → plan (under the read lock: cache, or spans of segments)
//	        → read and check each span → join with what was cached
//
// # On disk
//
// A directory of segments, <seq in 16 hex digits>.seg, numbered without gaps,
// preallocated and written from front to back. A segment is a sequence of
// records (layout in record.go), and records form batches, the last record of
// each being flagged. A batch counts whole or not at all.
//
//	segment   header batch │ batch │ batch │ … │ zeros
//	header    segment(version, seq, last index, its term) meta [hard state] snapshot
//	batch     [reset] entry… [hard state]  │  snapshot  │  meta  │  mark  │  seal(next seq)
//
// A later entry of the same index supersedes the earlier one and all after it.
// Preallocation is the file system's (fallocate). Filling segments with zeros
// first was tried and changed nothing: 0.2 to 0.3 ms a sync on ext4 either way.
//
// Since a header repeats all that is not an entry, segments can be deleted
// from the front once a snapshot record says that their entries are dropped.
//
// # Invariants
//
//  1. A record is valid only at the offset and in the segment it was written
//     for (they are part of its checksum).
//  2. A record carries the offset up to which its segment was durable when it
//     was written. So an invalid record is a torn write if no valid record
//     behind it says that it was durable, and damage otherwise. Blocks of an
//     unsynced write may reach the disk in any order, and this rule covers
//     that.
//  3. A segment's header is durable before the segment has its name; a sealed
//     segment has a successor, under its name or its temporary one.
//  4. Only the last segment can have a torn tail. It is cut, and everything
//     after it is zero, before anything is written again.
//  5. A snapshot record is durable before a file is deleted on its account.
//  6. After a failed write, sync or checked read nothing is written again.
//
// What cannot be told from a torn write is damage in the very last batch of a
// log that was not closed, or the loss of the file's end. After Close a mark
// stands behind the last batch, so that there it is damage, unless the mark
// itself is hit.
//
// # Goroutines and locks
//
// The package starts none. Log.w is held by the one writer, through its write
// and sync; Log.mu guards the index, the cache and the hard state, is never
// held across I/O, and is taken after Log.w. A segment's file is closed when
// it was dropped and the last reader has released it.
package raftlog

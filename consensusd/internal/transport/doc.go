// Package transport carries raft messages between members: it promises nothing
// but order within a stream, since raft repeats what is lost.
//
// # Path
//
//	raft loop, appender ──Send──▶ outbox of (peer, class), bounded
//	                                │ whatever gathered is the next batch
//	                                ▼
//	        one sender goroutine each ──▶ peerpb.Peer.Send stream
//	                                            │
//	  Receiver.Receive ◀── one handler goroutine per inbound stream
//
// # Classes
//
// Each peer has two streams on connections of their own. Appends, with entries
// or without, go by the bulk one, so that they stay in order among themselves;
// everything else (heartbeats, votes, acknowledgements) goes by the control
// one, where it never queues behind entries.
//
// # Invariants
//
//  1. Send never blocks and never waits for the network.
//  2. An outbox holds at most outboxMessagesMax messages and outboxBytesMax bytes.
//     What does not fit is dropped and the peer reported unreachable, which makes
//     raft probe where it stands.
//  3. While no stream is open, messages are dropped at once: a peer that returns
//     is not greeted with old news.
//  4. The first message of each stream is a greeting without raft messages. Who
//     has been greeted knows that the peer is up.
//  5. A message of another cluster, or for another member, ends the stream.
//
// # Goroutines
//
// Run owns the senders and returns after all have ended. Handlers belong to
// the gRPC server; they end with their stream or when Run ends.
package transport

// Package watch is etcd's Watch service over what the stores applied: live from
// the bus, from history where a watcher is behind.
//
// # Promise
//
// A watcher gets every event of its range from its start revision on, in order,
// each once, a whole transaction in one response; or it is told that it cannot
// (compacted), or its stream ends. A client that does not read holds up nobody.
//
// # Stages
//
//  1. accept (accept.go): a batch of the bus becomes entries of the ring, and
//     the newest revision, current, moves up. A gap makes every synced watcher
//     unsynced; it costs no event.
//  2. dispatch (dispatch.go): the watchers of each event are looked up by key
//     (index.go), and get the revision's events, encoded once (encode.go).
//  3. offer (outbox.go): the response goes to the bounded outbox of the client's
//     stream. If it does not fit, the watcher becomes a victim.
//  4. wake (wake.go): after some entries the senders are woken, those of one
//     connection together, so that what they write leaves in few pieces.
//  5. send (stream.go): the stream's own goroutine writes to the client.
//
// Beside that path, catch-up (catchup.go): unsynced watchers of similar position
// form a cohort that shares one reader (reader.go) of the ring or of a store's
// history, lowest revision first, and joins the synced ones when it has read all
// that there is.
//
// # States of a watcher
//
//	          create, start > current
//	create ──────────────────────────────▶ synced ◀──────────┐ read up to current
//	   │ start <= current                  │  │ gap          │
//	   ▼                                   │  ▼              │
//	unsynced ◀──────────────────────── victim (outbox full)  │
//	   │  ▲    outbox drained              ▲                 │
//	   ▼  │ reader failed or ended early   │ outbox full     │
//	reading ─────────────────────────────────────────────────┘
//
// # Invariants
//
//  1. next of a watcher is the least revision whose events it has not been given:
//     everything below is in its stream's outbox or sent, nothing at or above.
//     Of a synced watcher it is current+1, or its start where that is higher.
//  2. The ring holds every revision from its first up to current.
//  3. A stream's responses leave in the order in which the hub gave them: created
//     before any event, no event after canceled, progress at R after every event
//     up to R, nothing between the pieces of a response.
//  4. A progress response is made only of current, and only for watchers that are
//     synced, so it never runs ahead of events.
//  5. What is encoded is shared and never changed.
//
// # Who owns what
//
// Hub.Run's goroutine owns every watcher, the ring, the index and the cohorts.
// Readers (at most Config.HistoryReadersMax goroutines) see only immutable
// descriptions of a cohort and entries, and hand over what they matched. A
// client's stream has two goroutines, receiving and sending; its outbox is the
// one piece that is shared with the hub, under its own lock. The hub waits for
// nobody.
package watch

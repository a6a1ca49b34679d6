// Package outcome keeps how commands ended until whoever proposed them has
// heard it, and streams it to them.
//
// Outcomes are not replicated state: every store computes the same ones, and a
// store that no longer has one says so (LOST), for the asker to ask another.
// They are kept per session, above what the session's owner has acknowledged,
// and within a bound on bytes for all sessions together; beyond it the largest
// session loses its oldest.
//
// # Invariants
//
//  1. A session's kept outcomes are of consecutive numbers and end at its last
//     applied number.
//  2. A stream sends each number above the asked one once, in order: its
//     outcome, or LOST.
//  3. Refusals (GAP, unknown session) have no number of their own; they go to
//     the streams that are attached when they happen, and a closed session's to
//     those that come while it is remembered.
//
// # Goroutines
//
// The apply loop adds. Each stream is served by its gRPC handler, which builds
// the bodies that were left unbuilt: so a store where nobody is attached builds
// none. One mutex guards the hub; nothing is built or sent under it.
package outcome

import (
	"context"

	"github.com/quartet-kv/quartet/proto/storepb"
)

// Outcome is how one command ended.
type Outcome struct {
	Seq      uint64
	Fate     storepb.Outcome_Fate
	Revision int64
	Index    uint64
	// Error is the text of etcd's error, empty for success.
	Error string
	// Body is the encoded response without its header, unless Lazy builds it.
	Body []byte
	Lazy Lazy
}

// Lazy is a body that is built when it is sent, by reading the state as of the
// command.
type Lazy interface {
	// Build returns the body. An error says that it cannot be built any more:
	// the outcome is lost.
	Build(ctx context.Context) ([]byte, error)
	// Bytes is about what keeping it unbuilt costs.
	Bytes() int
}

// Kind of Effect.
type Kind int

const (
	// Opened: the session's first outcome will follow; Nonce names it.
	Opened Kind = iota
	// Closed: the session takes no more commands.
	Closed
	// Acked: outcomes up to Outcome.Seq may be forgotten.
	Acked
	// Decided: Outcome is the next number's.
	Decided
	// Refused: Outcome tells of a command that was not taken.
	Refused
)

// Effect is what applying did to a session, in the order of applying.
type Effect struct {
	Kind    Kind
	Session uint64
	Nonce   string
	// Last is the session's last applied number, of an Opened one.
	Last    uint64
	Outcome Outcome
}

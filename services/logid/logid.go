// Package logid names positions of the log. Everything that travels along the
// circle says where it stands as an ID; two IDs are the same history only if
// all three parts agree.
package logid

import (
	"fmt"

	"github.com/quartet-kv/quartet/proto/logpb"
)

// Epoch counts the times that history was rewritten by hand (restore,
// force-new-cluster). Positions of different epochs do not compare.
type Epoch uint64

// Index is a position in the log of one epoch, starting at 1.
type Index uint64

// Term is a raft term.
type Term uint64

// ID is a position together with the term of its entry. The zero ID is before
// the first entry: what an empty store has applied.
type ID struct {
	Epoch Epoch
	Index Index
	Term  Term
}

// FromProto reads an ID off the wire; nil is the zero ID.
func FromProto(p *logpb.LogID) ID {
	return ID{Epoch(p.GetEpoch()), Index(p.GetIndex()), Term(p.GetTerm())}
}

// Proto is the ID as it travels.
func (id ID) Proto() *logpb.LogID {
	return &logpb.LogID{Epoch: uint64(id.Epoch), Index: uint64(id.Index), Term: uint64(id.Term)}
}

// IsZero tells whether id is before the first entry of its epoch.
func (id ID) IsZero() bool { return id.Index == 0 }

// String is epoch/index@term, as logs show it.
func (id ID) String() string { return fmt.Sprintf("%d/%d@%d", id.Epoch, id.Index, id.Term) }

package node

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quartet-kv/quartet/consensusd/internal/membership"
)

// Meta is what the log's metadata says of an index: the membership as of it.
// Everything up to it was committed.
type Meta struct {
	Applied uint64
	Conf    *raftpb.ConfState
	Members membership.List
}

// InitialState is what raft starts from, given the hard state of the log: a
// commit index travels with the appends and may be older than the metadata,
// and the conf state of the log's snapshot is.
func (m Meta) InitialState(hs *raftpb.HardState) (*raftpb.HardState, *raftpb.ConfState) {
	if m.Applied > hs.GetCommit() {
		hs = &raftpb.HardState{Term: new(hs.GetTerm()), Vote: new(hs.GetVote()), Commit: new(m.Applied)}
	}
	return hs, raftpb.EnsureConfState(m.Conf)
}

// Storage is the durable log, whose InitialState has gone through
// Meta.InitialState. Reads may run beside one writer.
type Storage interface {
	raft.Storage
	// Append makes the hard state (nil: unchanged) and the entries durable, which
	// may replace entries of the same indexes and whatever followed them. After an
	// error the Storage is unusable.
	Append(hs *raftpb.HardState, entries []*raftpb.Entry) error
	// Truncate lets go of entries below an index; it may keep some. The entry
	// below the first that is kept must be applied according to the metadata.
	Truncate(below uint64) error
	// SaveMeta makes the metadata durable.
	SaveMeta(Meta) error
	// Meta is what was last saved; the zero Meta in a new log.
	Meta() (Meta, error)
	// Size is the bytes that the log takes.
	Size() uint64
	// TailStart is the lowest index from which on the entries' data take at most
	// bytes.
	TailStart(bytes uint64) uint64
}

// Start is where a log stands when it is opened.
type Start struct {
	Empty       bool // nothing was ever written
	Applied     uint64
	AppliedTerm uint64
	Conf        *raftpb.ConfState
	Members     membership.List
}

// ReadStart finds where a log stands.
func ReadStart(s Storage) (Start, error) {
	meta, err := s.Meta()
	if err != nil {
		return Start{}, fmt.Errorf("read the log's metadata: %w", err)
	}
	hs, _, err := s.InitialState()
	if err != nil {
		return Start{}, fmt.Errorf("read the log's state: %w", err)
	}
	last, err := s.LastIndex()
	if err != nil {
		return Start{}, fmt.Errorf("read the log's end: %w", err)
	}
	out := Start{Applied: meta.Applied, Conf: meta.Conf, Members: meta.Members}
	if last == 0 && raft.IsEmptyHardState(hs) {
		out.Empty = true
		return out, nil
	}
	if out.Applied > 0 {
		if out.AppliedTerm, err = s.Term(out.Applied); err != nil {
			return Start{}, fmt.Errorf("read the term of %d, which the metadata says is applied: %w", out.Applied, err)
		}
	}
	return out, nil
}

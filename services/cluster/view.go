package cluster

import (
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/logid"
)

// View is the cluster as the Directory saw it at one moment. It is immutable;
// the zero View is that of a Directory which has reached nobody yet.
type View struct {
	ClusterID uint64
	Epoch     logid.Epoch
	Term      logid.Term
	// Leader of Term, 0 when none is known.
	Leader uint64
	// Publisher is the member whose store publishes on the bus, 0 when unknown.
	Publisher uint64
	// Members in ascending order of their ids.
	Members []Member
}

// Member is one member of a View.
type Member struct {
	*consensuspb.Member
	// Reachable: its consensusd is being observed right now.
	Reachable bool
	// Status is the last that its consensusd sent, nil before the first.
	// Positions in it are as old as that message.
	Status *consensuspb.Status
}

// Member finds a member by id.
func (v View) Member(id uint64) (Member, bool) {
	for _, m := range v.Members {
		if m.Id == id {
			return m, true
		}
	}
	return Member{}, false
}

// Led tells whether a leader is known whose consensusd is reachable.
func (v View) Led() bool {
	m, ok := v.Member(v.Leader)
	return ok && m.Reachable
}

package node

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/errs"
)

// Leadership is one term that this member leads.
type Leadership struct {
	Term  uint64
	Ended chan struct{} // closed when it is over
}

// Leadership returns the current one, nil when this member does not lead.
func (n *Node) Leadership() *Leadership { return n.leadership.Load() }

// leads tells whether the member leads, with an entry of the term delivered.
func (n *Node) leads() bool { return n.leadership.Load() != nil }

// updateLeadership follows what raft last said.
func (n *Node) updateLeadership() {
	leading := n.role == raft.StateLeader
	if l := n.leadership.Load(); l != nil && (!leading || l.Term != n.term) {
		n.stopLeading()
	}
	if !leading && len(n.round.waiting)+len(n.round.out) > 0 {
		n.failReads(errs.ErrNotLeader)
	}
	if leading && !n.leads() && n.deliveredTerm == n.term {
		n.leadership.Store(&Leadership{Term: n.term, Ended: make(chan struct{})})
		n.deps.Metrics.IsLeader.Set(1)
		n.maybeAskRead()
	}
	n.updateView()
}

// stopLeading ends every stream and read of the term.
func (n *Node) stopLeading() {
	if l := n.leadership.Swap(nil); l != nil {
		close(l.Ended)
	}
	n.deps.Metrics.IsLeader.Set(0)
	n.failReads(errs.ErrNotLeader)
}

// knownLeader is who may be called leader: one of whose term an entry was
// delivered here.
func (n *Node) knownLeader() uint64 {
	if n.deliveredTerm != n.term {
		return 0
	}
	return n.lead
}

// view is one state of what Observe shows. It is immutable.
type view struct {
	status *consensuspb.Status // positions are not filled in
	next   chan struct{}       // closed when there is a newer one
}

// Observe returns the status, without positions, and a channel that is closed
// when it is no longer the newest.
func (n *Node) Observe() (*consensuspb.Status, <-chan struct{}) {
	v := n.view.Load()
	return v.status, v.next
}

// updateView publishes the status if it has changed, and tells the stores.
func (n *Node) updateView() {
	defer n.hubState()
	old := n.view.Load()
	if old != nil {
		s := old.status
		if s.Role == n.statusRole() && s.Term == n.term && s.Leader == n.knownLeader() &&
			s.Publisher == n.cluster.publisher && sameMembers(s.Members, n.members) {
			return
		}
	}
	status := &consensuspb.Status{
		ClusterId: n.cfg.ID.Cluster, MemberId: n.cfg.ID.Member, Epoch: n.cfg.ID.Epoch,
		Role: n.statusRole(), Term: n.term, Leader: n.knownLeader(),
		Members: n.members, Publisher: n.cluster.publisher,
	}
	n.view.Store(&view{status, make(chan struct{})})
	if old == nil {
		return
	}
	close(old.next)
	if old.status.Leader != status.Leader {
		n.deps.Metrics.LeaderChanges.Inc()
		n.deps.Log.Info("leader", "peer", fmt.Sprintf("%x", status.Leader), "term", status.Term)
		n.updateCluster()
	}
}

func (n *Node) statusRole() consensuspb.Status_Role {
	switch {
	case n.role == raft.StateLeader && n.leads():
		return consensuspb.Status_LEADER
	case n.role == raft.StateFollower:
		if m := n.members.Find(n.cfg.ID.Member); m != nil && m.Learner {
			return consensuspb.Status_LEARNER
		}
		return consensuspb.Status_FOLLOWER
	default:
		return consensuspb.Status_CANDIDATE
	}
}

// sameMembers compares two lists. They are values, so the same array is the
// usual case.
func sameMembers(a, b []*consensuspb.Member) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] && !proto.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

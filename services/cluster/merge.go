package cluster

import (
	"cmp"
	"context"
	"slices"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/logid"
)

// merge is Run's state: what each address said last, and the best of it.
type merge struct {
	clusterID uint64
	at        map[string]*observed
	// epoch and term never go down, so that a View's do not.
	epoch logid.Epoch
	term  logid.Term
}

type observed struct {
	stop      context.CancelFunc
	seed      bool
	status    *consensuspb.Status
	reachable bool
}

func newMerge(clusterID uint64) *merge {
	return &merge{clusterID: clusterID, at: make(map[string]*observed)}
}

// on takes one event in.
func (m *merge) on(e event) error {
	o := m.at[e.addr]
	if o == nil {
		return nil // an observer that was stopped meanwhile
	}
	if e.status == nil {
		o.reachable = false
		return nil
	}
	if m.clusterID == 0 {
		m.clusterID = e.status.ClusterId
	}
	if e.status.ClusterId != m.clusterID {
		o.reachable = false
		return errOtherCluster
	}
	o.status, o.reachable = e.status, true
	epoch, term := logid.Epoch(e.status.Epoch), logid.Term(e.status.Term)
	if epoch > m.epoch {
		m.epoch, m.term = epoch, term
	} else if epoch == m.epoch {
		m.term = max(m.term, term)
	}
	return nil
}

// follow starts observers for members that have none, and stops those of
// addresses that are neither a member's nor a seed.
func (m *merge) follow(observe func(addr string) context.CancelFunc) {
	best := m.advanced()
	if best == nil || len(best.Members) == 0 {
		return
	}
	listed := make(map[string]bool)
	for _, member := range best.Members {
		if addr := member.ConsensusAddress; addr != "" {
			listed[addr] = true
			if m.at[addr] == nil {
				m.at[addr] = &observed{stop: observe(addr)}
			}
		}
	}
	for addr, o := range m.at {
		if !listed[addr] && !o.seed {
			o.stop()
			delete(m.at, addr)
		}
	}
}

// advanced is the status that has seen most of the log when it was sent.
func (m *merge) advanced() *consensuspb.Status {
	var best *consensuspb.Status
	for _, o := range m.at {
		if s := o.status; s != nil && (best == nil || compareAdvance(s, best) > 0) {
			best = s
		}
	}
	return best
}

func compareAdvance(a, b *consensuspb.Status) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Commit, b.Commit), cmp.Compare(a.Term, b.Term), cmp.Compare(len(a.Members), len(b.Members)))
}

// view is the merged state, in structures of its own.
func (m *merge) view() View {
	v := View{ClusterID: m.clusterID, Epoch: m.epoch, Term: m.term}
	best := m.advanced()
	if best == nil {
		return v
	}
	for _, member := range best.Members {
		row := Member{Member: member}
		row.Status, row.Reachable = m.saidBy(member.Id)
		v.Members = append(v.Members, row)
	}
	slices.SortFunc(v.Members, func(a, b Member) int { return cmp.Compare(a.Id, b.Id) })
	v.Leader = m.leader()
	v.Publisher = m.publisher(v.Leader)
	return v
}

// saidBy is what a member's consensusd said last, and whether it is reachable;
// the same member may be observed at two addresses (as a seed and as listed).
func (m *merge) saidBy(id uint64) (status *consensuspb.Status, reachable bool) {
	for _, o := range m.at {
		if o.status == nil || o.status.MemberId != id {
			continue
		}
		if status == nil || (o.reachable && !reachable) || (o.reachable == reachable && compareAdvance(o.status, status) > 0) {
			status = o.status
		}
		reachable = reachable || o.reachable
	}
	return status, reachable
}

// leader is whom the reachable members name for the current term, unless that
// one is reachable and says that it does not lead.
func (m *merge) leader() uint64 {
	var named uint64
	for _, o := range m.at {
		if s := o.status; o.reachable && m.current(s) && s.Leader != 0 {
			named = s.Leader
		}
	}
	if own, reachable := m.saidBy(named); reachable && m.current(own) && own.Role != consensuspb.Status_LEADER {
		return 0
	}
	return named
}

// publisher is whom the leader names, else whom anybody names at this term.
func (m *merge) publisher(leader uint64) uint64 {
	if own, reachable := m.saidBy(leader); reachable && m.current(own) && own.Publisher != 0 {
		return own.Publisher
	}
	for _, o := range m.at {
		if s := o.status; o.reachable && m.current(s) && s.Publisher != 0 {
			return s.Publisher
		}
	}
	return 0
}

func (m *merge) current(s *consensuspb.Status) bool {
	return logid.Epoch(s.Epoch) == m.epoch && logid.Term(s.Term) == m.term
}

package node

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

// Pauses of the first election, in ticks.
const (
	// electAfter is how long a member that has met a quorum listens for a leader.
	electAfter = 2
	// electApart lets the member before win before the next one tries.
	electApart = 2
)

// firstElection shortens the wait for the first leader after a start.
type firstElection struct {
	met   map[uint64]bool // who has greeted this member, itself included
	ticks int             // since a quorum has met, without a leader
	over  bool
}

// maybeCampaign starts the first election early. It is called each tick.
//
// Pre-vote keeps it harmless: members that hear a leader do not answer, and no
// term is spent.
func (n *Node) maybeCampaign() {
	e := &n.election
	if n.lead != raft.None || n.role != raft.StateFollower {
		e.over = true
	}
	voters := n.conf.GetVoters()
	if e.over || n.delivered < n.commit || len(voters) == 1 {
		return
	}
	met, rank := 0, 0
	for _, v := range voters { // sorted
		if e.met[v] {
			met++
			if v < n.cfg.ID.Member {
				rank++
			}
		}
	}
	if met < len(voters)/2+1 {
		return
	}
	e.ticks++
	if e.ticks < electAfter+electApart*rank {
		return
	}
	e.over = true
	n.campaign()
}

// maybeCampaignAlone makes a lone voter the leader at once: there is nobody to
// listen for. It is called on each pass of the loop.
func (n *Node) maybeCampaignAlone() {
	e, voters := &n.election, n.conf.GetVoters()
	if e.over || len(voters) != 1 || voters[0] != n.cfg.ID.Member || n.delivered < n.commit {
		return
	}
	e.over = true
	n.campaign()
	n.ready()
}

func (n *Node) campaign() {
	if err := n.raw.Campaign(); err != nil {
		n.deps.Log.Debug("campaign", "term", n.term, "err", err)
	}
}

// handover is the orderly end of a leader.
type handover struct {
	begun bool
	to    uint64
	ticks int // left
}

// Bounds of a handover.
const (
	// handoverFresh is how many ticks ago the receiver was heard at most.
	handoverFresh = 3
	// handoverLinger is how long a member that leads no more stays for its vote to
	// be on disk, sent, and answered by a leader.
	handoverLinger = time.Second
	// handoverMax bounds the whole, beside the election timeout.
	handoverMax = 5 * time.Second
)

// startHandover gives leadership to the follower that is furthest, if there is
// one that was heard lately.
func (n *Node) startHandover() {
	n.handover = handover{begun: true}
	if n.role != raft.StateLeader {
		return
	}
	var best, match uint64
	since := n.deps.Clock.Now() - handoverFresh*n.cfg.Tick
	n.raw.WithProgress(func(id uint64, typ raft.ProgressType, pr tracker.Progress) {
		at, heard := n.cluster.heard[id]
		if id != n.cfg.ID.Member && typ == raft.ProgressTypePeer && heard && at >= since && (best == 0 || pr.Match > match) {
			best, match = id, pr.Match
		}
	})
	if best == 0 {
		return
	}
	n.handover.to, n.handover.ticks = best, min(n.cfg.ElectionTicks, int(handoverMax/n.cfg.Tick)+1)
	n.deps.Log.Info("handing leadership over", "peer", fmt.Sprintf("%x", best), "term", n.term)
	n.raw.TransferLeader(best)
}

// done tells that the member may stop: it does not lead, and knows who does
// (until then its vote may be needed), or has waited long enough.
func (h *handover) done(n *Node) bool {
	if !h.begun {
		return false
	}
	if n.role != raft.StateLeader {
		// The next leader may be stopping too, and never be heard.
		h.ticks = min(h.ticks, int(handoverLinger/n.cfg.Tick)+1)
	}
	return h.ticks <= 0 || n.role != raft.StateLeader && n.lead != raft.None
}

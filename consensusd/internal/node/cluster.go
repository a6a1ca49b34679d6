package node

import (
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/quartet-kv/quartet/consensusd/internal/deliver"
	"github.com/quartet-kv/quartet/proto/peerpb"
)

// truncateMin keeps truncation from being asked for a handful of entries.
const truncateMin = 100

// clusterView is what members have told each other about their stores.
type clusterView struct {
	reports   map[uint64]*peerpb.Report
	heard     map[uint64]time.Duration // when a member last sent anything
	publisher uint64                   // the member whose store publishes; 0: none
	truncate  uint64                   // as the leader said
	truncated uint64                   // as last asked of the storage
}

// onReport takes what came along with a heartbeat or its answer.
func (n *Node) onReport(from uint64, r *peerpb.Report) {
	n.cluster.reports[from] = r
	if from != n.lead || n.role == raft.StateLeader {
		return
	}
	n.cluster.truncate = max(n.cluster.truncate, r.Truncate)
	if r.Publisher != n.cluster.publisher {
		n.cluster.publisher = r.Publisher
		n.updateView()
	}
}

// onUnreachable: messages to a peer were lost.
func (n *Node) onUnreachable(peer uint64) {
	n.raw.ReportUnreachable(peer)
	if n.handover.to == peer {
		n.handover.ticks = 0
	}
}

// updateCluster renews what this member reports and, on the leader, who
// publishes and how far logs may be truncated. It is called each tick and
// when a store comes or goes.
func (n *Node) updateCluster() {
	own := n.deps.Hub.Progress()
	if n.leads() {
		if p := n.choosePublisher(own); p != n.cluster.publisher {
			n.cluster.publisher = p
			n.updateView()
		}
		n.cluster.truncate = max(n.cluster.truncate, n.truncatable(own))
	}
	report := &peerpb.Report{StoreAttached: own.Attached, Applied: uint64(own.Applied), Synced: uint64(own.Synced)}
	if n.leads() {
		report.Publisher, report.Truncate = n.cluster.publisher, n.cluster.truncate
	}
	n.deps.Sender.SetReport(report)
	n.measureLog()
	n.maybeTruncate(own)
}

// choosePublisher names the leader's own store, which is told of a commit
// first, else the furthest of those heard lately.
func (n *Node) choosePublisher(own deliver.Progress) uint64 {
	if own.Attached {
		return n.cfg.ID.Member
	}
	var best, applied uint64
	since := n.deps.Clock.Now() - time.Duration(n.cfg.ElectionTicks)*n.cfg.Tick
	for _, m := range n.members {
		r, ok := n.cluster.reports[m.Id]
		if ok && r.StoreAttached && n.cluster.heard[m.Id] >= since && (best == 0 || r.Applied > applied) {
			best, applied = m.Id, r.Applied
		}
	}
	return best
}

// truncatable is the index below which no member needs the log: each has it,
// and its store has synced it.
func (n *Node) truncatable(own deliver.Progress) uint64 {
	least := min(uint64(own.Synced), n.delivered)
	n.raw.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == n.cfg.ID.Member {
			return
		}
		synced := uint64(0)
		if r, ok := n.cluster.reports[id]; ok {
			synced = r.Synced
		}
		least = min(least, pr.Match, synced)
	})
	return n.withTail(least)
}

// withTail is an index at or below least that leaves a tail for those who come
// back, bounded in entries and in bytes. A start reads the whole log, so that
// the bytes bound it too. Only a log of twice the bytes is looked through.
func (n *Node) withTail(least uint64) uint64 {
	from := least - min(least, n.cfg.LogTailEntries)
	if n.deps.Storage.Size() > 2*n.cfg.LogTailBytes {
		from = max(from, min(least, n.deps.Storage.TailStart(n.cfg.LogTailBytes)))
	}
	return from
}

// maybeTruncate lets go of what the leader allows and the own store has synced.
func (n *Node) maybeTruncate(own deliver.Progress) {
	below := min(n.cluster.truncate, uint64(own.Synced), n.delivered)
	step := max(n.cfg.LogTailEntries/4, truncateMin)
	if n.deps.Storage.Size() > 2*n.cfg.LogTailBytes {
		step = 1
	}
	// The snapshot that stands for what is gone holds the membership as of its own
	// index, and only today's is at hand.
	if below < n.cluster.truncated+step || below <= n.confIndex {
		return
	}
	n.cluster.truncated = below
	n.saveMeta(below)
}

// measureLog finds whether the hard cap is reached.
func (n *Node) measureLog() {
	size := n.deps.Storage.Size()
	full := size >= n.cfg.LogBytesMax
	if full != n.logFull {
		n.deps.Log.Warn("log size against its cap", "full", full, "bytes", size, "max", n.cfg.LogBytesMax)
		n.logFull = full
	}
	if first, err := n.deps.Storage.FirstIndex(); err == nil {
		n.deps.Metrics.LogFirst.Set(float64(first))
	}
	if last, err := n.deps.Storage.LastIndex(); err == nil {
		n.deps.Metrics.LogLast.Set(float64(last))
	}
}

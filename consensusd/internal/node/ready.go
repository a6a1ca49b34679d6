package node

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/consensusd/internal/deliver"
	"github.com/quartet-kv/quartet/proto/consensuspb"
)

// committedBytesMax bounds what raft hands over as committed at once.
const committedBytesMax = 4 << 20

// ready gives away what raft wants done, until it wants nothing.
func (n *Node) ready() {
	for n.raw.HasReady() {
		rd := n.raw.Ready()
		n.note(rd)
		n.dispatch(rd.Messages)
		for _, rs := range rd.ReadStates {
			n.onReadState(rs)
		}
		n.updateLeadership()
	}
}

// note keeps what raft says of itself.
func (n *Node) note(rd raft.Ready) {
	if rd.SoftState != nil {
		n.lead, n.role = rd.SoftState.Lead, rd.SoftState.RaftState
	}
	if !raft.IsEmptyHardState(rd.HardState) {
		n.term, n.commit = rd.HardState.GetTerm(), rd.HardState.GetCommit()
		n.deps.Metrics.Term.Set(float64(n.term))
		n.deps.Metrics.Commit.Set(float64(n.commit))
	}
}

// dispatch sends messages to peers first, so that they travel while this
// member writes, then gives the appender its work, then hands over what is
// committed.
func (n *Node) dispatch(messages []*raftpb.Message) {
	var local [2]*raftpb.Message
	out := messages[:0:0]
	for _, m := range messages {
		switch {
		case m.GetTo() == raft.LocalAppendThread:
			local[0] = m
		case m.GetTo() == raft.LocalApplyThread:
			local[1] = m
		case m.GetType() == raftpb.MsgSnap:
			n.onSnapshotWanted(m.GetTo())
		default:
			if out == nil {
				out = make([]*raftpb.Message, 0, len(messages))
			}
			out = append(out, m)
		}
	}
	if len(out) > 0 {
		n.sendOut(out)
	}
	if local[0] != nil {
		n.appender.push(local[0])
	}
	if local[1] != nil {
		n.handOver(local[1])
	}
}

func (n *Node) sendOut(messages []*raftpb.Message) { n.deps.Sender.Send(messages) }

// handOver gives committed entries to the Hub. To raft they are applied then:
// stores read them at their own pace.
func (n *Node) handOver(m *raftpb.Message) {
	for _, e := range m.Entries {
		if e.GetType() != raftpb.EntryNormal {
			n.applyConfChange(e)
		}
	}
	last := m.Entries[len(m.Entries)-1]
	n.delivered, n.deliveredTerm = last.GetIndex(), last.GetTerm()
	n.deps.Hub.Advance(m.Entries)
	n.onStored(m.Responses)
	if n.metaDue || n.delivered >= n.savedIndex+metaEvery {
		n.saveMeta(0)
	}
}

// metaEvery bounds the committed entries that a start reads again.
const metaEvery = 10_000

// saveMeta has the metadata as of the delivered index written, and then the
// log truncated below an index unless that is 0.
func (n *Node) saveMeta(truncate uint64) {
	n.savedIndex, n.metaDue = n.delivered, false
	n.appender.saveMeta(Meta{Applied: n.delivered, Conf: n.conf, Members: n.members}, truncate)
}

// begin makes the first entries of an empty log: one for each first member.
func (n *Node) begin() error {
	peers := make([]raft.Peer, len(n.cfg.Members))
	for i, m := range n.cfg.Members {
		row, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			return fmt.Errorf("encode member %s: %w", m.Name, err)
		}
		peers[i] = raft.Peer{ID: m.Id, Context: row}
	}
	if err := n.raw.Bootstrap(peers); err != nil {
		return fmt.Errorf("begin the log: %w", err)
	}
	return nil
}

// applyConfChange changes the membership when the entry that says so is
// committed. The metadata follows; a crash before it is written repeats the
// change from the log.
func (n *Node) applyConfChange(e *raftpb.Entry) {
	cc := &raftpb.ConfChange{}
	if err := proto.Unmarshal(e.Data, cc); e.GetType() != raftpb.EntryConfChange || err != nil {
		panic(fmt.Sprintf("entry %d of type %v is no membership change that is known: %v", e.GetIndex(), e.GetType(), err))
	}
	n.conf = n.raw.ApplyConfChange(cc)
	switch cc.GetType() {
	case raftpb.ConfChangeAddNode, raftpb.ConfChangeAddLearnerNode, raftpb.ConfChangeUpdateNode:
		m := &consensuspb.Member{}
		if err := proto.Unmarshal(cc.Context, m); err != nil || m.Id != cc.GetNodeId() {
			panic(fmt.Sprintf("entry %d adds member %x with a row of %x: %v", e.GetIndex(), cc.GetNodeId(), m.Id, err))
		}
		m.Learner = cc.GetType() == raftpb.ConfChangeAddLearnerNode
		n.members = n.members.With(m).Readdress(n.cfg.Members)
	case raftpb.ConfChangeRemoveNode:
		n.members = n.members.Without(cc.GetNodeId())
	}
	n.confIndex = e.GetIndex()
	n.metaDue = true // written once the whole batch is handed over
	n.updateView()
}

// onSnapshotWanted: a member needs entries that are gone. Since nothing is
// truncated that a member has not, it has lost its log, and is to be replaced.
func (n *Node) onSnapshotWanted(peer uint64) {
	n.deps.Metrics.SnapshotWanted.Inc()
	n.deps.Log.Warn("a member needs entries that are truncated", "peer", fmt.Sprintf("%x", peer))
	n.raw.ReportSnapshot(peer, raft.SnapshotFailure)
}

// hubState tells idle stores where this member stands.
func (n *Node) hubState() {
	n.deps.Hub.SetState(deliver.State{
		Commit:  n.delivered,
		Term:    n.term,
		Publish: n.cluster.publisher == n.cfg.ID.Member,
	})
}

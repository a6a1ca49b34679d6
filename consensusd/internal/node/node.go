package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sync/errgroup"

	"github.com/quartet-kv/quartet/consensusd/internal/deliver"
	"github.com/quartet-kv/quartet/consensusd/internal/membership"
	"github.com/quartet-kv/quartet/proto/peerpb"
	"github.com/quartet-kv/quartet/services/clock"
)

// Config of a Node. All fields are needed.
type Config struct {
	ID      membership.Identity
	Members membership.List // the configured ones; they begin an empty log

	Tick          time.Duration // one heartbeat
	ElectionTicks int

	AppendBytesMax      uint64 // of one append message to a peer
	InflightBytesMax    uint64 // sent to a peer and not acknowledged
	InflightMessagesMax int
	UncommittedBytesMax uint64 // of proposals
	LogBytesMax         uint64 // the hard cap: beyond it proposals are refused
	LogTailEntries      uint64 // kept below what every store has synced
	LogTailBytes        uint64 // the same; the smaller of the two tails is kept
}

// Metrics are the Node's.
type Metrics struct {
	Proposed       prometheus.Counter // entries
	Refused        prometheus.Counter // requests
	Reads          prometheus.Counter // asked
	ReadRounds     prometheus.Counter
	LeaderChanges  prometheus.Counter
	AppendSeconds  prometheus.Observer
	AppendEntries  prometheus.Observer // entries per append
	Term           prometheus.Gauge
	Commit         prometheus.Gauge
	IsLeader       prometheus.Gauge
	LogFirst       prometheus.Gauge
	LogLast        prometheus.Gauge
	MessagesLate   prometheus.Counter // peer messages that waited for the loop
	SnapshotWanted prometheus.Counter // members that need entries which are gone
}

// Sender is how messages leave; see transport.
type Sender interface {
	Send([]*raftpb.Message)
	SetReport(*peerpb.Report)
}

// Deps of a Node.
type Deps struct {
	Storage Storage
	Hub     *deliver.Hub
	Sender  Sender
	Clock   clock.Clock
	Log     *slog.Logger
	Metrics Metrics
}

// Depths of the loop's channels. Whoever finds one full waits, except for
// unreachable, which is dropped: raft will hear of it again.
const (
	proposeDepth     = 64
	readDepth        = 256
	peerDepth        = 64
	storedDepth      = 64
	unreachableDepth = 16
	// gatherMax bounds what one pass of the loop takes from its channels.
	gatherMax = 512
)

// Node is one member's raft.
type Node struct {
	cfg  Config
	deps Deps

	proposals   chan *proposal
	reads       chan *readAsk
	peers       chan peerBatch
	stored      chan []*raftpb.Message
	unreachable chan uint64
	attached    chan struct{} // a store came or went
	stopped     chan struct{} // closed when Run has ended

	appender   *appender
	leadership atomic.Pointer[Leadership] // nil unless leading, established
	view       atomic.Pointer[view]

	// Below: the loop's own.

	raw *raft.RawNode

	// What raft last said of itself.
	term, commit uint64
	lead         uint64
	role         raft.StateType

	// delivered is the last entry handed to the Hub.
	delivered, deliveredTerm uint64
	members                  membership.List
	conf                     *raftpb.ConfState
	confIndex                uint64 // of the last membership change since the start
	savedIndex               uint64 // of the metadata last written
	metaDue                  bool   // the membership has changed since

	pending      []*proposal // gathered, not yet proposed
	pendingBytes int
	round        readRound
	election     firstElection
	cluster      clusterView
	handover     handover
	logFull      bool
}

// New prepares a Node on its storage, which it begins if empty. The Hub must
// start where Start says.
func New(cfg Config, deps Deps) (*Node, error) {
	n := &Node{
		cfg: cfg, deps: deps,
		proposals:   make(chan *proposal, proposeDepth),
		reads:       make(chan *readAsk, readDepth),
		peers:       make(chan peerBatch, peerDepth),
		stored:      make(chan []*raftpb.Message, storedDepth),
		unreachable: make(chan uint64, unreachableDepth),
		attached:    make(chan struct{}, 1),
		stopped:     make(chan struct{}),
	}
	n.cluster.reports = make(map[uint64]*peerpb.Report)
	n.cluster.heard = make(map[uint64]time.Duration)
	n.election.met = map[uint64]bool{cfg.ID.Member: true}
	if err := n.open(); err != nil {
		return nil, err
	}
	n.appender = newAppender(deps.Storage, n.stored, n.sendOut, deps.Metrics)
	n.updateView()
	return n, nil
}

// open reads where the log stands and starts raft on it.
func (n *Node) open() error {
	start, err := ReadStart(n.deps.Storage)
	if err != nil {
		return err
	}
	n.members = start.Members.Readdress(n.cfg.Members)
	n.conf, n.savedIndex = start.Conf, start.Applied
	n.delivered, n.deliveredTerm = start.Applied, start.AppliedTerm
	n.raw, err = raft.NewRawNode(&raft.Config{
		ID:                        n.cfg.ID.Member,
		ElectionTick:              n.cfg.ElectionTicks,
		HeartbeatTick:             1,
		Storage:                   n.deps.Storage,
		Applied:                   start.Applied,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             n.cfg.AppendBytesMax,
		MaxCommittedSizePerReady:  committedBytesMax,
		MaxUncommittedEntriesSize: n.cfg.UncommittedBytesMax,
		MaxInflightMsgs:           n.cfg.InflightMessagesMax,
		MaxInflightBytes:          n.cfg.InflightBytesMax,
		CheckQuorum:               true,
		PreVote:                   true,
		ReadOnlyOption:            raft.ReadOnlySafe,
		DisableProposalForwarding: true,
		StepDownOnRemoval:         true,
		Logger:                    raftLogger{n.deps.Log},
	})
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	if start.Empty {
		if err := n.begin(); err != nil {
			return err
		}
	}
	status := n.raw.BasicStatus()
	n.term, n.commit = status.GetTerm(), status.GetCommit()
	n.lead, n.role = status.Lead, status.RaftState
	return nil
}

// Run drives raft until ctx ends, and then hands leadership over, or until
// the storage fails. It may be called once.
func (n *Node) Run(ctx context.Context) error {
	defer close(n.stopped)
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, inner := errgroup.WithContext(inner)
	g.Go(func() error { return n.appender.run(inner) })
	g.Go(func() error {
		defer stop()
		n.loop(ctx, inner)
		return nil
	})
	return g.Wait()
}

// loop is the only goroutine that touches raft. It returns when ctx has ended
// and leadership is handed over, or when inner ends.
func (n *Node) loop(ctx, inner context.Context) {
	ticker := n.deps.Clock.Ticker(n.cfg.Tick)
	defer ticker.Stop()
	defer n.stopLeading()
	done := ctx.Done()
	for {
		n.ready()
		n.maybeCampaignAlone()
		select {
		case <-ticker.C():
			n.tick()
		case p := <-n.proposals:
			n.gather(p)
		case a := <-n.reads:
			n.onReadAsk(a)
		case b := <-n.peers:
			n.onPeer(b)
		case acks := <-n.stored:
			n.onStored(acks)
		case peer := <-n.unreachable:
			n.onUnreachable(peer)
		case <-n.attached:
			n.updateCluster()
		case <-done:
			n.startHandover()
			done = nil
		case <-inner.Done():
			return
		}
		n.takeGathered()
		n.propose()
		n.maybeAskRead()
		if n.handover.done(n) {
			n.ready()
			n.saveMeta(0)
			return
		}
	}
}

// takeGathered takes what else is there, without waiting.
func (n *Node) takeGathered() {
	for range gatherMax {
		select {
		case p := <-n.proposals:
			n.gather(p)
		case a := <-n.reads:
			n.onReadAsk(a)
		case b := <-n.peers:
			n.onPeer(b)
		case acks := <-n.stored:
			n.onStored(acks)
		default:
			return
		}
	}
}

// tick passes one heartbeat of time.
func (n *Node) tick() {
	n.raw.Tick()
	n.round.onTick()
	n.maybeCampaign()
	n.updateCluster()
	n.handover.ticks--
}

// onStored steps the appender's acknowledgements.
func (n *Node) onStored(acks []*raftpb.Message) {
	for _, m := range acks {
		n.step(m)
	}
}

// step gives raft a message. What raft refuses is old news or a stranger's, and
// no reason to stop.
func (n *Node) step(m *raftpb.Message) {
	if err := n.raw.Step(m); err != nil {
		n.deps.Log.Debug("raft message refused", "type", m.GetType(), "peer", fmt.Sprintf("%x", m.GetFrom()), "err", err)
	}
}

// Attached tells the loop that a store came or went. It does not block.
func (n *Node) Attached() {
	select {
	case n.attached <- struct{}{}:
	default:
	}
}

// Stopped is closed when Run has ended.
func (n *Node) Stopped() <-chan struct{} { return n.stopped }

// peerBatch is what a peer sent at once.
type peerBatch struct {
	from     uint64
	messages []*raftpb.Message
	report   *peerpb.Report
}

// Receive implements transport.Receiver.
func (n *Node) Receive(ctx context.Context, from uint64, messages []*raftpb.Message, report *peerpb.Report) error {
	b := peerBatch{from, messages, report}
	select {
	case n.peers <- b:
		return nil
	default:
		n.deps.Metrics.MessagesLate.Add(float64(len(messages)))
	}
	select {
	case n.peers <- b:
		return nil
	case <-n.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Unreachable implements transport.Receiver.
func (n *Node) Unreachable(peer uint64) {
	select {
	case n.unreachable <- peer:
	default:
	}
}

// onPeer steps what a peer sent.
func (n *Node) onPeer(b peerBatch) {
	n.election.met[b.from] = true
	n.cluster.heard[b.from] = n.deps.Clock.Now()
	if b.report != nil {
		n.onReport(b.from, b.report)
	}
	for _, m := range b.messages {
		if m.GetType() == raftpb.MsgSnap {
			// A snapshot holds positions only, and may be acknowledged only by a
			// member whose store has filled itself elsewhere.
			n.deps.Log.Warn("snapshot refused", "peer", fmt.Sprintf("%x", b.from), "index", m.GetSnapshot().GetMetadata().GetIndex())
			continue
		}
		n.step(m)
	}
}

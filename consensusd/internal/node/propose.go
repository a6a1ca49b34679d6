package node

import (
	"context"
	"errors"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quartet-kv/quartet/services/errs"
)

var errStopped = errs.ErrStopped

// proposeBytesMax bounds the payloads of one pass of the loop, softly.
const proposeBytesMax = 1 << 20

// proposal is one request of a stream.
type proposal struct {
	term     uint64
	payloads [][]byte
	done     chan error // takes one
}

// Proposer is the proposing side of one stream. It is used by one goroutine.
type Proposer struct {
	node *Node
	p    proposal
}

// Proposer returns one for a stream that is bound to a term.
func (n *Node) Proposer(term uint64) *Proposer {
	return &Proposer{n, proposal{term: term, done: make(chan error, 1)}}
}

// Propose takes payloads for the log, in order, and returns when they are taken
// or refused, all of them: ErrNotLeader when the term is over,
// ErrTooManyRequests when the log may not grow. After any error the Proposer is
// spent, so that nothing later of its stream is taken.
func (p *Proposer) Propose(ctx context.Context, payloads [][]byte) error {
	p.p.payloads = payloads
	select {
	case p.node.proposals <- &p.p:
	case <-p.node.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-p.p.done:
		return err
	case <-p.node.stopped:
		return errStopped
	}
}

// gather keeps a proposal for the next propose.
func (n *Node) gather(p *proposal) {
	n.pending = append(n.pending, p)
	for _, b := range p.payloads {
		n.pendingBytes += len(b)
	}
	if n.pendingBytes >= proposeBytesMax {
		n.propose()
	}
}

// propose steps raft once for all that gathered, so that one message to each
// peer and one append carry it.
func (n *Node) propose() {
	if len(n.pending) == 0 {
		return
	}
	taken := n.pending[:0]
	var entries []*raftpb.Entry
	for _, p := range n.pending {
		if err := n.refusal(p.term); err != nil {
			n.refuse(p, err)
			continue
		}
		taken = append(taken, p)
		entries = appendPayloads(entries, p.payloads)
	}
	if len(entries) > 0 {
		n.proposeEntries(taken, entries)
	}
	clear(n.pending)
	n.pending, n.pendingBytes = n.pending[:0], 0
}

// refusal is why nothing may be proposed in a term now.
func (n *Node) refusal(term uint64) error {
	switch {
	case n.role != raft.StateLeader || n.term != term || !n.leads() || n.handover.begun:
		return errs.ErrNotLeader
	case n.logFull:
		return errs.ErrTooManyRequests
	}
	return nil
}

// proposeEntries proposes for all; if raft finds that too much, one after
// the other for as long as it takes them.
func (n *Node) proposeEntries(taken []*proposal, entries []*raftpb.Entry) {
	err := n.stepProposal(entries)
	if err == nil || len(taken) == 1 {
		for _, p := range taken {
			n.answer(p, err)
		}
		return
	}
	for _, p := range taken {
		n.answer(p, n.stepProposal(appendPayloads(nil, p.payloads)))
	}
}

func (n *Node) stepProposal(entries []*raftpb.Entry) error {
	err := n.raw.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: &n.cfg.ID.Member, Entries: entries})
	switch {
	case err == nil:
		n.deps.Metrics.Proposed.Add(float64(len(entries)))
		return nil
	case errors.Is(err, raft.ErrProposalDropped) && n.stillLeads():
		return errs.ErrTooManyRequests
	default:
		return errs.ErrNotLeader
	}
}

// stillLeads asks raft itself: what it last said may be older than the messages
// stepped since.
func (n *Node) stillLeads() bool {
	s := n.raw.BasicStatus()
	return s.RaftState == raft.StateLeader && s.LeadTransferee == raft.None
}

func (n *Node) answer(p *proposal, err error) {
	if err != nil {
		n.refuse(p, err)
		return
	}
	p.done <- nil
}

func (n *Node) refuse(p *proposal, err error) {
	n.deps.Metrics.Refused.Inc()
	p.done <- err
}

// appendPayloads makes an entry of each payload, with two allocations for all.
func appendPayloads(entries []*raftpb.Entry, payloads [][]byte) []*raftpb.Entry {
	rows := make([]raftpb.Entry, len(payloads))
	for i, b := range payloads {
		rows[i].Data = b
		entries = append(entries, &rows[i])
	}
	return entries
}

package node

import (
	"context"
	"encoding/binary"
	"time"

	"go.etcd.io/raft/v3"

	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

// Limits of read indexes.
const (
	// readRetry is how long a round is out before it is asked again.
	readRetry = 500 * time.Millisecond
	// readAsksMax bounds those that wait.
	readAsksMax = 10_000
)

// ReadPoint is where a linearizable read may be served: by whoever has applied
// the index.
type ReadPoint struct {
	Index logid.Index
	Term  logid.Term // the leader's, and the entry's at Index
}

type readAsk struct{ done chan readAnswer }

type readAnswer struct {
	point ReadPoint
	err   error
}

// ReadIndex returns a point that covers everything acknowledged before the
// call, ErrNotLeader when the member does not lead or stops leading.
func (n *Node) ReadIndex(ctx context.Context) (ReadPoint, error) {
	ask := &readAsk{make(chan readAnswer, 1)}
	select {
	case n.reads <- ask:
	case <-n.stopped:
		return ReadPoint{}, errStopped
	case <-ctx.Done():
		return ReadPoint{}, ctx.Err()
	}
	select {
	case a := <-ask.done:
		return a.point, a.err
	case <-n.stopped:
		return ReadPoint{}, errStopped
	case <-ctx.Done():
		return ReadPoint{}, ctx.Err()
	}
}

// readRound is the one question that is out, and who waits for the next.
type readRound struct {
	waiting []*readAsk
	out     []*readAsk // empty: no round is out
	first   uint64     // the round's first context
	last    uint64     // the last context ever used; contexts are never used again
	ticks   int        // since the last try
}

func (r *readRound) onTick() { r.ticks++ }

func (n *Node) onReadAsk(a *readAsk) {
	n.deps.Metrics.Reads.Inc()
	switch {
	case n.role != raft.StateLeader:
		a.done <- readAnswer{err: errs.ErrNotLeader}
	case len(n.round.waiting) >= readAsksMax:
		a.done <- readAnswer{err: errs.ErrTooManyRequests}
	default:
		n.round.waiting = append(n.round.waiting, a)
	}
}

// maybeAskRead starts a round for all that wait, or asks again for the one
// that is out.
func (n *Node) maybeAskRead() {
	r := &n.round
	if !n.leads() {
		return // failed by stopLeading, or waiting for the term's first entry
	}
	switch {
	case len(r.out) == 0 && len(r.waiting) > 0:
		r.out, r.waiting = r.waiting, r.out[:0]
		r.first = r.last + 1
		n.deps.Metrics.ReadRounds.Inc()
	case len(r.out) > 0 && time.Duration(r.ticks)*n.cfg.Tick >= readRetry:
	default:
		return
	}
	r.last++
	r.ticks = 0
	n.raw.ReadIndex(binary.BigEndian.AppendUint64(nil, r.last))
}

// onReadState answers the round. Any of its tries will do: each was asked after
// everyone in it had come.
func (n *Node) onReadState(rs raft.ReadState) {
	r := &n.round
	if len(rs.RequestCtx) != 8 || len(r.out) == 0 || binary.BigEndian.Uint64(rs.RequestCtx) < r.first {
		return
	}
	// The index covers the leader's first entry, so its term is the leader's.
	point := ReadPoint{logid.Index(rs.Index), logid.Term(n.term)}
	for i, a := range r.out {
		a.done <- readAnswer{point: point}
		r.out[i] = nil
	}
	r.out = r.out[:0]
}

// failReads ends the round and all who wait: leadership is over.
func (n *Node) failReads(err error) {
	for _, asks := range [][]*readAsk{n.round.out, n.round.waiting} {
		for _, a := range asks {
			a.done <- readAnswer{err: err}
		}
	}
	n.round.out, n.round.waiting = nil, nil
}

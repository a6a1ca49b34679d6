package transport

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quartet-kv/quartet/consensusd/internal/membership"
	"github.com/quartet-kv/quartet/proto/peerpb"
	"github.com/quartet-kv/quartet/services/dial"
)

// Receiver takes what peers send.
type Receiver interface {
	// Receive takes a batch; report is nil when the peer sent none. It may block
	// for flow control, until ctx ends.
	Receive(ctx context.Context, from uint64, messages []*raftpb.Message, report *peerpb.Report) error
	// Unreachable says that messages to a peer were lost. It does not block.
	Unreachable(peer uint64)
}

// Metrics are the transport's, by class of stream ("control", "bulk").
type Metrics struct {
	Sent, Dropped *prometheus.CounterVec // messages
	SentBytes     *prometheus.CounterVec
}

// Transport connects one member with its peers.
type Transport struct {
	id      membership.Identity
	dialer  dial.Dialer
	log     *slog.Logger
	metrics Metrics

	peers    map[uint64]*peer // fixed at the start
	receiver Receiver         // set by Bind
	report   atomic.Pointer[peerpb.Report]
	running  chan struct{} // closed by Bind
	stopped  chan struct{} // closed when Run has ended
}

// peer is the sending side to one member.
type peer struct {
	id      uint64
	address string
	control *outbox
	bulk    *outbox
}

// New returns a Transport for the member to the others, by id and address.
func New(id membership.Identity, peers map[uint64]string, d dial.Dialer, log *slog.Logger, m Metrics) *Transport {
	t := &Transport{
		id: id, dialer: d, log: log, metrics: m,
		peers: make(map[uint64]*peer), running: make(chan struct{}), stopped: make(chan struct{}),
	}
	for other, address := range peers {
		t.peers[other] = &peer{id: other, address: address, control: newOutbox(), bulk: newOutbox()}
	}
	return t
}

// Bind names who takes what peers send. It is called once, before Send and Run.
func (t *Transport) Bind(r Receiver) {
	t.receiver = r
	close(t.running)
}

// Run sends until ctx ends. It may be called once.
func (t *Transport) Run(ctx context.Context) error {
	defer close(t.stopped)
	var senders sync.WaitGroup
	for _, p := range t.peers {
		for _, s := range []*sender{
			{transport: t, peer: p, box: p.control, class: dial.Control, name: "control"},
			{transport: t, peer: p, box: p.bulk, class: dial.Bulk, name: "bulk"},
		} {
			senders.Go(func() { s.run(ctx) })
		}
	}
	senders.Wait()
	return nil
}

// SetReport sets what goes along with heartbeats and their answers from now on.
func (t *Transport) SetReport(r *peerpb.Report) { t.report.Store(r) }

// Send queues messages for their receivers. Messages for one peer and of one
// class arrive in the order sent, or not at all.
func (t *Transport) Send(messages []*raftpb.Message) {
	for _, m := range messages {
		p := t.peers[m.GetTo()]
		if p == nil {
			continue // a member that is gone
		}
		box, class := p.control, "control"
		if m.GetType() == raftpb.MsgApp {
			box, class = p.bulk, "bulk"
		}
		if !box.put(m) {
			t.metrics.Dropped.WithLabelValues(class).Inc()
			if m.GetType() == raftpb.MsgApp {
				t.receiver.Unreachable(p.id)
			}
		}
	}
}

// describe names a peer in logs.
func (p *peer) describe() string { return fmt.Sprintf("%x", p.id) }

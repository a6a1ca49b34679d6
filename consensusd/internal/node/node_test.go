package node_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/quartet-kv/quartet/consensusd/internal/deliver"
	"github.com/quartet-kv/quartet/consensusd/internal/membership"
	"github.com/quartet-kv/quartet/consensusd/internal/memlog"
	"github.com/quartet-kv/quartet/consensusd/internal/node"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/peerpb"
	"github.com/quartet-kv/quartet/services/clock"
	"github.com/quartet-kv/quartet/services/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nowhere is a Sender without peers.
type nowhere struct{}

func (nowhere) Send([]*raftpb.Message)   {}
func (nowhere) SetReport(*peerpb.Report) {}

// gatedLog holds up appends of entries while it is shut.
type gatedLog struct {
	*memlog.Log
	shut    atomic.Bool
	waiting chan struct{} // gets one for each append that is held up
	open    chan struct{}
}

func newGatedLog(l *memlog.Log) *gatedLog {
	return &gatedLog{Log: l, waiting: make(chan struct{}, 16), open: make(chan struct{})}
}

func (l *gatedLog) Append(hs *raftpb.HardState, entries []*raftpb.Entry) error {
	if len(entries) > 0 && l.shut.Load() {
		l.waiting <- struct{}{}
		<-l.open
	}
	return l.Log.Append(hs, entries)
}

func counter() prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: "c"})
}

func gauge() prometheus.Gauge { return prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"}) }

func metrics() node.Metrics {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h"})
	return node.Metrics{
		Proposed: counter(), Refused: counter(), Reads: counter(), ReadRounds: counter(), LeaderChanges: counter(),
		AppendSeconds: h, AppendEntries: h, Term: gauge(), Commit: gauge(), IsLeader: gauge(), LogFirst: gauge(), LogLast: gauge(),
		MessagesLate: counter(), SnapshotWanted: counter(),
	}
}

// lone is the only member of a cluster.
func lone(t *testing.T, log node.Storage) *node.Node {
	t.Helper()
	id := membership.Identity{Cluster: 1, Member: 7, Epoch: 1}
	start, err := node.ReadStart(log)
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	hub := deliver.NewHub(id, log, start.Applied, func() {}, logger, deliver.Metrics{Entries: counter(), Streams: gauge()})
	n, err := node.New(node.Config{
		ID: id, Members: membership.List{{Id: 7, Name: "m"}},
		Tick: 10 * time.Millisecond, ElectionTicks: 10,
		AppendBytesMax: 1 << 20, InflightBytesMax: 4 << 20, InflightMessagesMax: 64, UncommittedBytesMax: 16 << 20,
		LogBytesMax: 1 << 30, LogTailEntries: 100, LogTailBytes: 1 << 20,
	}, node.Deps{Storage: log, Hub: hub, Sender: nowhere{}, Clock: clock.Real(), Log: logger, Metrics: metrics()})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// run runs a node; stop ends it and returns its error.
func run(n *node.Node) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

func waitLeads(t *testing.T, n *node.Node) *node.Leadership {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		st, next := n.Observe()
		if st.Role == consensuspb.Status_LEADER {
			return n.Leadership()
		}
		select {
		case <-next:
		case <-deadline:
			t.Fatal("no leader")
		}
	}
}

// filled is a log with n entries, all committed, of which the hard state
// knows only the first: what a power cut leaves, as the commit index travels
// with later appends.
func filled(t *testing.T, entries int) *memlog.Log {
	t.Helper()
	log := memlog.New()
	n := lone(t, log)
	stop := run(n)
	p := n.Proposer(waitLeads(t, n).Term)
	for range entries {
		if err := p.Propose(context.Background(), [][]byte{[]byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	hs, _, err := log.InitialState()
	if err != nil {
		t.Fatal(err)
	}
	meta, err := log.Meta()
	if err != nil {
		t.Fatal(err)
	}
	meta.Applied = 1
	if err := errors.Join(log.SaveMeta(meta), log.SetHardState(&raftpb.HardState{Term: hs.Term, Vote: hs.Vote, Commit: new(uint64(1))})); err != nil {
		t.Fatal(err)
	}
	return log
}

func TestReadIndexWaitsForTheTermsFirstEntry(t *testing.T) {
	log := newGatedLog(filled(t, 20))
	last, err := log.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	log.shut.Store(true)
	n := lone(t, log)
	stop := run(n)
	release := sync.OnceFunc(func() { close(log.open) })
	defer release()
	// The vote is written; the append of the term's first entry is held up. Raft
	// leads already, and would answer with the index 1.
	<-log.waiting
	type result struct {
		point node.ReadPoint
		err   error
	}
	answer := make(chan result, 1)
	go func() {
		p, err := n.ReadIndex(context.Background())
		answer <- result{p, err}
	}()
	select {
	case r := <-answer:
		t.Fatalf("answered %v, %v before the term's first entry was committed", r.point, r.err)
	case <-time.After(50 * time.Millisecond): // how long an answer is given to be wrong
	}
	if st, _ := n.Observe(); st.Leader != 0 || n.Leadership() != nil {
		t.Errorf("a leader is known: %v", st)
	}
	release()
	if r := <-answer; r.err != nil || uint64(r.point.Index) <= last {
		t.Errorf("read index %v, %v with entries up to %d acknowledged", r.point, r.err, last)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestProposalOfAnotherTermIsRefused(t *testing.T) {
	n := lone(t, memlog.New())
	stop := run(n)
	term := waitLeads(t, n).Term
	for _, other := range []uint64{term - 1, term + 1} {
		if err := n.Proposer(other).Propose(context.Background(), [][]byte{[]byte("x")}); !errors.Is(err, errs.ErrNotLeader) {
			t.Errorf("term %d while %d leads: %v", other, term, err)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := n.Proposer(term).Propose(context.Background(), [][]byte{[]byte("x")}); !errors.Is(err, errs.ErrStopped) {
		t.Errorf("after the end: %v", err)
	}
}

func TestFailedAppendEndsRun(t *testing.T) {
	log := memlog.New()
	n := lone(t, log)
	ended := make(chan error, 1)
	go func() { ended <- n.Run(context.Background()) }()
	lead := waitLeads(t, n)
	broken := errors.New("broken disk")
	log.Fail(broken)
	// Taken for the log is not committed; it never will be.
	_ = n.Proposer(lead.Term).Propose(context.Background(), [][]byte{[]byte("x")})
	if err := <-ended; !errors.Is(err, broken) {
		t.Errorf("Run returned %v", err)
	}
	select {
	case <-lead.Ended:
	default:
		t.Error("leadership outlived the log")
	}
	if _, err := n.ReadIndex(context.Background()); !errors.Is(err, errs.ErrStopped) {
		t.Errorf("read index after the end: %v", err)
	}
}

func TestReadsShareRounds(t *testing.T) {
	n := lone(t, memlog.New())
	stop := run(n)
	waitLeads(t, n)
	const readers = 200
	errsC := make(chan error, readers)
	for range readers {
		go func() {
			_, err := n.ReadIndex(context.Background())
			errsC <- err
		}()
	}
	for range readers {
		if err := <-errsC; err != nil {
			t.Error(err)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

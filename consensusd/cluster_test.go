package consensusd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quartet-kv/quartet/consensusd"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/inproc"
	"github.com/quartet-kv/quartet/services/logid"
)

// patience bounds every wait of these tests; none takes a hundredth of it.
const patience = 60 * time.Second

// cluster is members on one fabric, each with a store of its own.
type cluster struct {
	t       testing.TB
	ctx     context.Context
	fabric  *inproc.Fabric
	members []*member
}

type member struct {
	cluster *cluster
	cfg     consensusd.Config
	addr    string
	store   *store
	gate    *gate

	server *inproc.Server
	stop   func() error // nil while down
}

func newCluster(t testing.TB, n int, edit ...func(*consensusd.Config)) *cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	c := &cluster{t: t, ctx: ctx, fabric: inproc.NewFabric()}
	var rows []consensusd.Member
	for i := range n {
		addr := fmt.Sprintf("m%d", i+1)
		rows = append(rows, consensusd.Member{Name: addr, PeerURLs: []string{addr}})
	}
	for i := range n {
		cfg := consensusd.DefaultConfig()
		cfg.Name, cfg.Members, cfg.DataDir = rows[i].Name, rows, t.TempDir()
		cfg.HeartbeatInterval, cfg.ElectionTimeout = 10*time.Millisecond, 100*time.Millisecond
		cfg.SegmentBytes = 1 << 20
		for _, e := range edit {
			e(&cfg)
		}
		m := &member{cluster: c, cfg: cfg, addr: rows[i].Name, gate: &gate{Dialer: c.fabric}}
		m.store = newStore(m)
		c.members = append(c.members, m)
	}
	t.Cleanup(c.stopAll)
	for _, m := range c.members {
		m.start()
	}
	return c
}

func (c *cluster) stopAll() {
	for _, m := range c.members {
		if m.stop != nil {
			m.halt()
		}
	}
}

// newBenchCluster has the default timing and no stores but what the benchmark
// attaches.
func newBenchCluster(b *testing.B, n int) *cluster {
	c := newCluster(b, n, func(cfg *consensusd.Config) {
		d := consensusd.DefaultConfig()
		cfg.HeartbeatInterval, cfg.ElectionTimeout, cfg.SegmentBytes = d.HeartbeatInterval, d.ElectionTimeout, d.SegmentBytes
	})
	return c
}

// start runs the member and its store.
func (m *member) start() {
	t := m.cluster.t
	t.Helper()
	m.gate.shut.Store(false)
	d, err := consensusd.New(m.cfg, consensusd.Deps{
		Log:     slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo})).With("name", m.addr),
		Metrics: prometheus.NewRegistry(), Dialer: m.gate,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := m.cluster.fabric.Server(m.addr)
	d.Register(server)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	storeEnded := make(chan struct{})
	go func() { defer close(storeEnded); m.store.run(ctx) }()
	m.server = server
	m.stop = func() error {
		cancel()
		err := <-ended
		server.Stop()
		<-storeEnded
		return err
	}
}

// kill cuts the member off before it is stopped, so that it can hand nothing
// over.
func (m *member) kill() {
	m.cluster.t.Helper()
	m.gate.shut.Store(true)
	m.server.Stop()
	m.halt()
}

// halt stops the member in good order.
func (m *member) halt() {
	m.cluster.t.Helper()
	if err := m.stop(); err != nil {
		m.cluster.t.Errorf("%s: %v", m.addr, err)
	}
	m.stop = nil
}

func (m *member) client() consensuspb.ConsensusClient {
	conn, err := m.cluster.fabric.Dial(m.addr, dial.Control)
	if err != nil {
		m.cluster.t.Fatal(err)
	}
	return consensuspb.NewConsensusClient(conn)
}

func (m *member) status() *consensuspb.Status {
	st, err := m.client().GetStatus(m.cluster.ctx, &consensuspb.GetStatusRequest{})
	if err != nil {
		return &consensuspb.Status{}
	}
	return st
}

// leader waits until every running member agrees on one, and returns it.
func (c *cluster) leader() *member {
	c.t.Helper()
	var found *member
	c.eventually("one leader known to all", func() bool {
		found = nil
		var id, term uint64
		for _, m := range c.members {
			if m.stop == nil {
				continue
			}
			st := m.status()
			if st.Leader == 0 || id != 0 && (st.Leader != id || st.Term != term) {
				return false
			}
			id, term = st.Leader, st.Term
			if st.Role == consensuspb.Status_LEADER {
				found = m
			}
		}
		return found != nil
	})
	return found
}

// eventually polls, which is for what has no event to wait for.
func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			c.t.Fatalf("not seen in time: %s", what)
		}
	}
}

// store keeps what its member delivers, as a store with a durable engine would.
type store struct {
	m *member

	mu       sync.Mutex
	entries  []*consensuspb.Entry
	response *consensuspb.DeliverResponse // the last one
	seq      int                          // by the session rule, of numbered payloads
	gap      error
}

func newStore(m *member) *store { return &store{m: m} }

func (s *store) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.follow(ctx); errors.Is(err, errs.ErrLogMismatch) || errors.Is(err, errs.ErrLogTruncated) {
			s.m.cluster.t.Errorf("%s: deliver: %v", s.m.addr, err)
			return
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (s *store) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.m.client().Deliver(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&consensuspb.DeliverRequest{Start: &consensuspb.DeliverStart{After: s.position().Proto(), Store: s.m.addr}}); err != nil {
		return err
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := s.take(r); err != nil {
			s.m.cluster.t.Errorf("%s: %v", s.m.addr, err)
			return err
		}
		if len(r.Entries) == 0 {
			continue
		}
		pos := s.position().Proto()
		if err := stream.Send(&consensuspb.DeliverRequest{Progress: &consensuspb.DeliverProgress{Applied: pos, Synced: pos}}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
}

func (s *store) take(r *consensuspb.DeliverResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range r.Entries {
		last := uint64(0)
		if len(s.entries) > 0 {
			last = s.entries[len(s.entries)-1].Index
		}
		if e.Index != last+1 {
			return fmt.Errorf("entry %d delivered after %d", e.Index, last)
		}
		s.entries = append(s.entries, e)
		s.apply(string(e.Payload))
	}
	s.response = r
	return nil
}

// apply follows the session rule: what is not above the last is skipped, what
// does not follow it is a gap.
func (s *store) apply(payload string) {
	seq, err := strconv.Atoi(payload)
	if err != nil || seq <= s.seq {
		return
	}
	if seq > s.seq+1 && s.gap == nil {
		s.gap = fmt.Errorf("%d after %d", seq, s.seq)
	}
	s.seq = seq
}

// applied is the last number, and the first gap.
func (s *store) applied() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq, s.gap
}

func (s *store) position() logid.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) == 0 {
		return logid.ID{}
	}
	e := s.entries[len(s.entries)-1]
	return logid.ID{Epoch: 1, Index: logid.Index(e.Index), Term: logid.Term(e.Term)}
}

// payloads are those of clients, in order.
func (s *store) payloads() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, e := range s.entries {
		if len(e.Payload) > 0 {
			out = append(out, string(e.Payload))
		}
	}
	return out
}

// gate is a member's way out to its peers, which can be shut.
type gate struct {
	dial.Dialer
	shut atomic.Bool
}

var errShut = status.Error(codes.Unavailable, "shut")

func (g *gate) Dial(addr string, c dial.Class) (grpc.ClientConnInterface, error) {
	conn, err := g.Dialer.Dial(addr, c)
	return gatedConn{conn, g}, err
}

type gatedConn struct {
	grpc.ClientConnInterface
	gate *gate
}

func (c gatedConn) NewStream(ctx context.Context, d *grpc.StreamDesc, method string, o ...grpc.CallOption) (grpc.ClientStream, error) {
	if c.gate.shut.Load() {
		return nil, errShut
	}
	s, err := c.ClientConnInterface.NewStream(ctx, d, method, o...)
	return gatedStream{s, c.gate}, err
}

type gatedStream struct {
	grpc.ClientStream
	gate *gate
}

func (s gatedStream) SendMsg(m any) error {
	if s.gate.shut.Load() {
		return errShut
	}
	return s.ClientStream.SendMsg(m)
}

// has tells whether the payload was delivered.
func (s *store) has(payload string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.entries) - 1; i >= 0; i-- {
		if string(s.entries[i].Payload) == payload {
			return true
		}
	}
	return false
}

// testWriter logs into the test, and into nothing once it is over.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(b[:len(b)-1]))
	return len(b), nil
}

var discard = slog.New(slog.DiscardHandler)

func newRegistry() *prometheus.Registry { return prometheus.NewRegistry() }

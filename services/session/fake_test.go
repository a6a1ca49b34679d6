package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/inproc"
)

// memory is a whole cluster in memory, with the session rule and with faults:
// leaders that lose their uncommitted tail, stores that lose outcomes, members
// that are paused.
type memory struct {
	fabric *inproc.Fabric
	// remote is nil when all is in process; else sockets is where servers listen.
	remote  *dial.GRPC
	sockets string

	mu struct {
		sync.Mutex
		changed chan struct{} // closed at each change of anything below
		term    uint64
		leader  uint64
		log     []entry // committed
		tail    []entry // the leader's, not committed yet
		hold    bool    // nothing is committed
		stores  map[uint64]*memoryStore
		paused  map[uint64]bool
		taken   int // payloads taken
		// addresses by name; over the network they are known once served.
		addresses map[string]string
	}
}

type entry struct {
	term    uint64
	payload []byte
}

// memoryStore is one member's store. Its state is a function of the log; its
// outcomes are not.
type memoryStore struct {
	applied  int
	sessions map[uint64]*memorySession
	bodies   []string
	server   stopper
	frozen   bool // applies nothing
}

type memorySession struct {
	nonce, owner string
	last         uint64
	outcomes     map[uint64]*storepb.Outcome
	refused      []*storepb.Outcome
	closed       bool // remembered for those who have not heard its end
}

type stopper interface{ Stop() }

func newMemory(t testing.TB, members int) *memory { return newMemoryOver(t, members, nil) }

// newMemoryOver serves the cluster over the network if remote is not nil.
func newMemoryOver(t testing.TB, members int, remote *dial.GRPC) *memory {
	m := &memory{fabric: inproc.NewFabric(), remote: remote}
	m.mu.changed = make(chan struct{})
	m.mu.stores = make(map[uint64]*memoryStore)
	m.mu.paused = make(map[uint64]bool)
	m.mu.addresses = make(map[string]string)
	m.mu.term, m.mu.leader = 1, 1
	if remote != nil {
		m.sockets = t.TempDir()
	}
	for id := uint64(1); id <= uint64(members); id++ {
		m.mu.stores[id] = &memoryStore{sessions: make(map[uint64]*memorySession)}
	}
	for id := range m.mu.stores {
		c := m.serve(consensusAddress(id), func(r grpc.ServiceRegistrar) {
			consensuspb.RegisterConsensusServer(r, &consensusServer{m: m, id: id})
		})
		t.Cleanup(c.Stop)
		m.serveStore(id)
	}
	t.Cleanup(func() {
		for id := range m.mu.stores {
			m.mu.Lock()
			server := m.mu.stores[id].server
			m.mu.Unlock()
			server.Stop()
		}
		if remote != nil {
			_ = remote.Close()
		}
	})
	return m
}

// serve puts services at a name, where an earlier server of that name was.
func (m *memory) serve(name string, register func(grpc.ServiceRegistrar)) stopper {
	if m.remote == nil {
		s := m.fabric.Server(name)
		register(s)
		m.do(func() { m.mu.addresses[name] = name })
		return s
	}
	path := filepath.Join(m.sockets, name)
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err) // also called from goroutines that are not the test's
	}
	s := grpc.NewServer(grpc.MaxRecvMsgSize(dial.MessageBytesMax))
	register(s)
	go func() { _ = s.Serve(l) }()
	m.do(func() { m.mu.addresses[name] = "unix:" + path })
	return listening{s, l}
}

// listening stops a server even if it has not begun to serve.
type listening struct {
	*grpc.Server
	listener net.Listener
}

func (l listening) Stop() {
	l.Server.Stop()
	_ = l.listener.Close()
}

func consensusAddress(id uint64) string { return fmt.Sprintf("consensus-%d", id) }
func storeAddress(id uint64) string     { return fmt.Sprintf("store-%d", id) }

func (m *memory) serveStore(id uint64) {
	s := m.serve(storeAddress(id), func(r grpc.ServiceRegistrar) {
		storepb.RegisterStoreServer(r, &storeServer{m: m, id: id})
	})
	m.do(func() { m.mu.stores[id].server = s })
}

func (m *memory) directory(t testing.TB) *cluster.Directory {
	var dialer dial.Dialer = m.fabric
	if m.remote != nil {
		dialer = m.remote
	}
	m.mu.Lock()
	seed := m.mu.addresses[consensusAddress(1)]
	m.mu.Unlock()
	d := cluster.New(cluster.Config{Seeds: []string{seed}, Dialer: dialer})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return d
}

// do changes the cluster and tells everybody.
func (m *memory) do(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	m.settleLocked()
}

func (m *memory) settleLocked() {
	if !m.mu.hold && m.mu.leader != 0 && !m.mu.paused[m.mu.leader] {
		m.mu.log = append(m.mu.log, m.mu.tail...)
		m.mu.tail = nil
	}
	for _, s := range m.mu.stores {
		for !s.frozen && s.applied < len(m.mu.log) {
			s.apply(uint64(s.applied+1), m.mu.log[s.applied].payload)
			s.applied++
		}
	}
	close(m.mu.changed)
	m.mu.changed = make(chan struct{})
}

// elect makes another member the leader; keep of the old one's tail survive.
func (m *memory) elect(leader uint64, keep int) {
	m.do(func() {
		keep = min(keep, len(m.mu.tail))
		m.mu.log = append(m.mu.log, m.mu.tail[:keep]...)
		m.mu.tail = nil
		m.mu.term++
		m.mu.leader = leader
	})
}

// restartStore ends the streams of a store and may forget its outcomes.
func (m *memory) restartStore(id uint64, forget bool) {
	m.mu.Lock()
	s := m.mu.stores[id]
	if forget {
		for _, session := range s.sessions {
			clear(session.outcomes)
		}
	}
	m.mu.Unlock()
	s.server.Stop()
	m.serveStore(id)
}

// evict closes every session by an entry in front of the leader's tail.
func (m *memory) evict() {
	m.do(func() { m.mu.log = append(m.mu.log, entry{term: m.mu.term}) })
}

// apply is the session rule.
func (s *memoryStore) apply(index uint64, payload []byte) {
	if payload == nil {
		for _, session := range s.sessions {
			session.closed = true
		}
		return
	}
	var b logpb.Batch
	if err := proto.Unmarshal(payload, &b); err != nil {
		panic(err)
	}
	if b.Session == 0 {
		s.open(index, b.Commands[0].Body)
		return
	}
	session := s.sessions[b.Session]
	for i, c := range b.Commands {
		seq := b.FirstSeq + uint64(i)
		switch {
		case session == nil:
		case session.closed:
			session.refused = append(session.refused, &storepb.Outcome{Seq: seq, Error: errs.Text(errs.ErrUnknownSession)})
		case seq <= session.last:
		case seq > session.last+1:
			session.refused = append(session.refused, &storepb.Outcome{Seq: seq, Fate: storepb.Outcome_GAP})
		default:
			session.last = seq
			if c.Kind == logpb.Command_SESSION_CLOSE {
				session.closed = true
				session.outcomes[seq] = &storepb.Outcome{Seq: seq}
				return
			}
			s.bodies = append(s.bodies, string(c.Body))
			session.outcomes[seq] = &storepb.Outcome{Seq: seq, Revision: int64(len(s.bodies)), Body: c.Body, Index: index}
		}
	}
	if session != nil {
		for seq := range session.outcomes {
			if seq <= b.Acked {
				delete(session.outcomes, seq)
			}
		}
	}
}

func (s *memoryStore) open(index uint64, body []byte) {
	var o logpb.SessionOpen
	if err := proto.Unmarshal(body, &o); err != nil {
		panic(err)
	}
	for _, session := range s.sessions {
		if session.nonce == string(o.Nonce) && !session.closed {
			return
		}
		if session.owner == o.Owner {
			session.closed = true
		}
	}
	s.sessions[index] = &memorySession{nonce: string(o.Nonce), owner: o.Owner, outcomes: make(map[uint64]*storepb.Outcome)}
}

type consensusServer struct {
	consensuspb.UnimplementedConsensusServer
	m  *memory
	id uint64
}

func (c *consensusServer) Observe(_ *consensuspb.ObserveRequest, stream consensuspb.Consensus_ObserveServer) error {
	var sent *consensuspb.Status
	for {
		c.m.mu.Lock()
		changed := c.m.mu.changed
		status := &consensuspb.Status{ClusterId: 7, MemberId: c.id, Epoch: 1, Term: c.m.mu.term, Leader: c.m.mu.leader, Commit: 1}
		if c.id == c.m.mu.leader {
			status.Role = consensuspb.Status_LEADER
		}
		for id := range c.m.mu.stores {
			status.Members = append(status.Members, &consensuspb.Member{Id: id, ConsensusAddress: c.m.mu.addresses[consensusAddress(id)], StoreAddress: c.m.mu.addresses[storeAddress(id)]})
		}
		silent := c.m.mu.paused[c.id] || sent != nil && sent.Term == status.Term && sent.Leader == status.Leader
		c.m.mu.Unlock()
		if !silent {
			if err := stream.Send(status); err != nil {
				return err
			}
			sent = status
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (c *consensusServer) Propose(stream consensuspb.Consensus_ProposeServer) error {
	c.m.mu.Lock()
	term, leads := c.m.mu.term, c.m.mu.leader == c.id
	c.m.mu.Unlock()
	if !leads {
		return errs.ErrNotLeader
	}
	if err := stream.Send(&consensuspb.ProposeResponse{Term: term}); err != nil {
		return err
	}
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.take(stream.Context(), term, req.Payloads); err != nil {
			return err
		}
	}
}

// take adds payloads to the tail; a paused member does not even refuse.
func (c *consensusServer) take(ctx context.Context, term uint64, payloads [][]byte) error {
	for {
		c.m.mu.Lock()
		changed, paused := c.m.mu.changed, c.m.mu.paused[c.id]
		if !paused {
			defer c.m.mu.Unlock()
			if c.m.mu.term != term || c.m.mu.leader != c.id {
				return errs.ErrNotLeader
			}
			for _, p := range payloads {
				c.m.mu.tail = append(c.m.mu.tail, entry{term, p})
				c.m.mu.taken++
			}
			c.m.settleLocked()
			return nil
		}
		c.m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type storeServer struct {
	storepb.UnimplementedStoreServer
	m  *memory
	id uint64
}

func (s *storeServer) GetStatus(context.Context, *storepb.GetStatusRequest) (*storepb.Status, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	return &storepb.Status{Applied: &logpb.LogID{Epoch: 1, Index: uint64(s.m.mu.stores[s.id].applied)}}, nil
}

func (s *storeServer) Outcomes(req *storepb.OutcomesRequest, stream storepb.Store_OutcomesServer) error {
	after, id, sent, closed := req.AfterSeq, req.Session, false, false
	for {
		s.m.mu.Lock()
		changed := s.m.mu.changed
		store := s.m.mu.stores[s.id]
		if id == 0 {
			id = store.byNonce(string(req.Nonce))
		}
		session := store.sessions[id]
		if !sent {
			closed = session != nil && session.closed
		}
		silent := s.m.mu.paused[s.id] || id == 0
		var b *storepb.OutcomeBatch
		if session != nil && !silent {
			b = session.after(id, &after)
		}
		s.m.mu.Unlock()
		if session == nil && !silent {
			return errs.ErrUnknownSession
		}
		if b != nil && (!sent || len(b.Outcomes) > 0) {
			sent = true
			if err := stream.Send(b); err != nil {
				return err
			}
		}
		if closed {
			return errs.ErrUnknownSession
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (s *memoryStore) byNonce(nonce string) uint64 {
	for id, session := range s.sessions {
		if session.nonce == nonce && !session.closed {
			return id
		}
	}
	return 0
}

func (s *memorySession) after(id uint64, after *uint64) *storepb.OutcomeBatch {
	b := &storepb.OutcomeBatch{Session: id, Last: s.last, RaftTerm: 1, Outcomes: s.refused}
	s.refused = nil
	for ; *after < s.last; *after++ {
		o := s.outcomes[*after+1]
		if o == nil {
			o = &storepb.Outcome{Seq: *after + 1, Fate: storepb.Outcome_LOST}
		}
		b.Outcomes = append(b.Outcomes, o)
	}
	return b
}

package leased_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/inproc"
)

// world is the rest of a cluster in memory, as far as lessors see it: members
// that lead, one log, and stores that apply sessions, leases and claims.
type world struct {
	fabric  *inproc.Fabric
	members int

	mu struct {
		sync.Mutex
		changed chan struct{} // closed at each change of anything below
		term    uint64
		leader  uint64
		index   uint64
		log     []*storepb.LeaseChanges // what each index changed
		state
	}
}

type state struct {
	leases   map[int64]*storepb.LeaseChange
	claim    uint64
	claimant uint64
	sessions map[uint64]*memorySession
	stale    int // commands refused for their claim
}

type memorySession struct {
	nonce, owner string
	last         uint64
	outcomes     map[uint64]*storepb.Outcome
}

func address(daemon string, member uint64) string { return fmt.Sprintf("%s-%d", daemon, member) }

func newWorld(t *testing.T, members int) *world {
	w := &world{fabric: inproc.NewFabric(), members: members}
	w.mu.changed = make(chan struct{})
	w.mu.term, w.mu.leader = 1, 1
	w.mu.leases = make(map[int64]*storepb.LeaseChange)
	w.mu.sessions = make(map[uint64]*memorySession)
	for id := uint64(1); id <= uint64(members); id++ {
		c, s := w.fabric.Server(address("consensus", id)), w.fabric.Server(address("store", id))
		consensuspb.RegisterConsensusServer(c, &consensusServer{w: w, id: id})
		storepb.RegisterStoreServer(s, &storeServer{w: w, id: id})
		t.Cleanup(c.Stop)
		t.Cleanup(s.Stop)
	}
	return w
}

// do changes the world and tells everybody.
func (w *world) do(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.mu.changed)
	w.mu.changed = make(chan struct{})
}

func (w *world) lead(member uint64) {
	w.do(func() {
		w.mu.term++
		w.mu.leader = member
	})
}

func (w *world) exists(id int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.leases[id] != nil
}

// command applies one command that came from nobody's session.
func (w *world) command(kind logpb.Command_Kind, body proto.Message) {
	b, err := proto.Marshal(body)
	if err != nil {
		panic(err)
	}
	w.do(func() {
		c := w.entryLocked()
		w.applyLocked(&logpb.Command{Kind: kind, Body: b}, c)
		w.sealLocked(c)
	})
}

func (w *world) entryLocked() *storepb.LeaseChanges {
	w.mu.index++
	return &storepb.LeaseChanges{At: &logpb.LogID{Epoch: 1, Index: w.mu.index, Term: w.mu.term}, Revision: int64(w.mu.index)}
}

func (w *world) sealLocked(c *storepb.LeaseChanges) {
	c.Claim, c.ClaimMember = w.mu.claim, w.mu.claimant
	w.mu.log = append(w.mu.log, c)
}

// batchLocked applies one entry of the log.
func (w *world) batchLocked(payload []byte) {
	var b logpb.Batch
	if err := proto.Unmarshal(payload, &b); err != nil {
		panic(err)
	}
	changes := w.entryLocked()
	defer w.sealLocked(changes)
	if b.Session == 0 {
		w.openLocked(b.Commands[0].Body)
		return
	}
	session := w.mu.sessions[b.Session]
	for i, c := range b.Commands {
		seq := b.FirstSeq + uint64(i)
		if session == nil || seq != session.last+1 {
			continue
		}
		session.last = seq
		text := w.applyLocked(c, changes)
		session.outcomes[seq] = &storepb.Outcome{Seq: seq, Error: text, Index: w.mu.index, Revision: int64(w.mu.index)}
	}
}

func (w *world) openLocked(body []byte) {
	var o logpb.SessionOpen
	if err := proto.Unmarshal(body, &o); err != nil {
		panic(err)
	}
	for id, s := range w.mu.sessions {
		if s.nonce == string(o.Nonce) {
			return
		}
		if s.owner == o.Owner {
			delete(w.mu.sessions, id)
		}
	}
	w.mu.sessions[w.mu.index] = &memorySession{nonce: string(o.Nonce), owner: o.Owner, outcomes: make(map[uint64]*storepb.Outcome)}
}

func mustDecode[M proto.Message](body []byte, m M) M {
	if err := proto.Unmarshal(body, m); err != nil {
		panic(err)
	}
	return m
}

// applyLocked applies one command and returns the text of its error.
func (w *world) applyLocked(c *logpb.Command, out *storepb.LeaseChanges) string {
	switch c.Kind {
	case logpb.Command_LEASE_GRANT:
		r := mustDecode(c.Body, &etcdserverpb.LeaseGrantRequest{})
		w.changeLocked(out, &storepb.LeaseChange{Op: storepb.LeaseChange_GRANTED, Id: r.ID, GrantIndex: w.mu.index, Ttl: r.TTL})
	case logpb.Command_LEASE_REVOKE:
		r := mustDecode(c.Body, &etcdserverpb.LeaseRevokeRequest{})
		w.changeLocked(out, &storepb.LeaseChange{Op: storepb.LeaseChange_REVOKED, Id: r.ID})
	case logpb.Command_LEASE_EXPIRE:
		r := mustDecode(c.Body, &logpb.LeaseExpire{})
		if r.Claim != w.mu.claim {
			w.mu.stale++
			return errs.Text(errs.ErrStaleClaim)
		}
		for _, f := range r.Leases {
			if w.fencedLocked(f) {
				w.changeLocked(out, &storepb.LeaseChange{Op: storepb.LeaseChange_REVOKED, Id: f.Id, GrantIndex: f.GrantIndex})
			}
		}
	case logpb.Command_LEASE_CHECKPOINT:
		r := mustDecode(c.Body, &logpb.LeaseCheckpoint{})
		if r.Claim != w.mu.claim {
			w.mu.stale++
			return errs.Text(errs.ErrStaleClaim)
		}
		for _, l := range r.Leases {
			if w.fencedLocked(l.Lease) {
				changed := proto.CloneOf(w.mu.leases[l.Lease.Id])
				changed.Op, changed.Remaining = storepb.LeaseChange_CHECKPOINTED, l.Seconds
				w.changeLocked(out, changed)
			}
		}
	case logpb.Command_LESSOR_CLAIM:
		r := mustDecode(c.Body, &logpb.LessorClaim{})
		if r.Expected != w.mu.claim {
			return errs.Text(errs.ErrStaleClaim)
		}
		w.mu.claim, w.mu.claimant = w.mu.index, r.Member
	}
	return ""
}

func (w *world) fencedLocked(f *logpb.LeaseFence) bool {
	l := w.mu.leases[f.Id]
	return l != nil && l.GrantIndex == f.GrantIndex
}

func (w *world) changeLocked(out *storepb.LeaseChanges, c *storepb.LeaseChange) {
	if c.Op == storepb.LeaseChange_REVOKED {
		delete(w.mu.leases, c.Id)
	} else {
		w.mu.leases[c.Id] = c
	}
	out.Changes = append(out.Changes, c)
}

type consensusServer struct {
	consensuspb.UnimplementedConsensusServer
	w  *world
	id uint64
}

func (c *consensusServer) statusLocked() *consensuspb.Status {
	s := &consensuspb.Status{ClusterId: 7, MemberId: c.id, Epoch: 1, Term: c.w.mu.term, Leader: c.w.mu.leader, Commit: c.w.mu.index}
	if c.id == s.Leader {
		s.Role = consensuspb.Status_LEADER
	}
	for id := uint64(1); id <= uint64(c.w.members); id++ {
		s.Members = append(s.Members, &consensuspb.Member{
			Id: id, ConsensusAddress: address("consensus", id), StoreAddress: address("store", id), LeaseAddress: address("lease", id),
		})
	}
	return s
}

func (c *consensusServer) GetStatus(context.Context, *consensuspb.GetStatusRequest) (*consensuspb.Status, error) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.statusLocked(), nil
}

func (c *consensusServer) Observe(_ *consensuspb.ObserveRequest, stream consensuspb.Consensus_ObserveServer) error {
	var term uint64
	for {
		c.w.mu.Lock()
		changed, status := c.w.mu.changed, c.statusLocked()
		c.w.mu.Unlock()
		if status.Term != term {
			term = status.Term
			if err := stream.Send(status); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (c *consensusServer) ReadIndex(context.Context, *consensuspb.ReadIndexRequest) (*consensuspb.ReadIndexResponse, error) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.w.mu.leader != c.id {
		return nil, errs.ErrNotLeader
	}
	return &consensuspb.ReadIndexResponse{Read: &logpb.LogID{Epoch: 1, Index: c.w.mu.index, Term: c.w.mu.term}, Term: c.w.mu.term}, nil
}

func (c *consensusServer) Propose(stream consensuspb.Consensus_ProposeServer) error {
	c.w.mu.Lock()
	term, leads := c.w.mu.term, c.w.mu.leader == c.id
	c.w.mu.Unlock()
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
		c.w.do(func() {
			if c.w.mu.term != term {
				err = errs.ErrNotLeader
				return
			}
			for _, p := range req.Payloads {
				c.w.batchLocked(p)
			}
		})
		if err != nil {
			return err
		}
	}
}

type storeServer struct {
	storepb.UnimplementedStoreServer
	w  *world
	id uint64
}

func (s *storeServer) Leases(_ *storepb.LeasesRequest, stream storepb.Store_LeasesServer) error {
	s.w.mu.Lock()
	first := &storepb.LeaseChanges{
		At: &logpb.LogID{Epoch: 1, Index: s.w.mu.index, Term: s.w.mu.term}, Complete: true,
		Claim: s.w.mu.claim, ClaimMember: s.w.mu.claimant, Revision: int64(s.w.mu.index),
	}
	for _, l := range s.w.mu.leases {
		first.Changes = append(first.Changes, l)
	}
	next := len(s.w.mu.log)
	s.w.mu.Unlock()
	if err := stream.Send(first); err != nil {
		return err
	}
	for {
		s.w.mu.Lock()
		changed, news := s.w.mu.changed, s.w.mu.log[next:]
		s.w.mu.Unlock()
		for _, c := range news {
			if err := stream.Send(c); err != nil {
				return err
			}
		}
		next += len(news)
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (s *storeServer) GetStatus(context.Context, *storepb.GetStatusRequest) (*storepb.Status, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return &storepb.Status{MemberId: s.id, Applied: &logpb.LogID{Epoch: 1, Index: s.w.mu.index}}, nil
}

func (s *storeServer) Outcomes(req *storepb.OutcomesRequest, stream storepb.Store_OutcomesServer) error {
	after, id, opened := req.AfterSeq, req.Session, false
	for {
		s.w.mu.Lock()
		changed := s.w.mu.changed
		for known, session := range s.w.mu.sessions {
			if id == 0 && session.nonce == string(req.Nonce) {
				id = known
			}
		}
		session := s.w.mu.sessions[id]
		var b *storepb.OutcomeBatch
		if session != nil && (!opened || after < session.last) {
			b = &storepb.OutcomeBatch{Session: id, Last: session.last, RaftTerm: s.w.mu.term}
			for ; after < session.last; after++ {
				b.Outcomes = append(b.Outcomes, session.outcomes[after+1])
			}
		}
		s.w.mu.Unlock()
		if session == nil && id != 0 {
			return errs.ErrUnknownSession
		}
		if b != nil {
			opened = true
			if err := stream.Send(b); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

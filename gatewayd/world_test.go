package gatewayd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/inproc"
)

const clusterID = 0xc0ffee

// world is what stands behind gateways: members whose consensusd order and
// whose stores put and get single keys. All stores share one state.
type world struct {
	fabric  *inproc.Fabric
	servers []*inproc.Server

	mu struct {
		sync.Mutex
		changed  chan struct{} // closed at each change of anything below
		members  []*consensuspb.Member
		leader   uint64
		term     uint64
		index    uint64
		terms    []uint64 // of each entry
		sessions map[uint64]*sessionState
		keys     map[string]*mvccpb.KeyValue
		revision int64
		news     []*buspb.Batch
	}
}

type sessionState struct {
	open     *logpb.SessionOpen
	outcomes []*storepb.Outcome
}

func newWorld(t *testing.T, members int) *world {
	w := &world{fabric: inproc.NewFabric()}
	w.mu.changed = make(chan struct{})
	w.mu.sessions, w.mu.keys = make(map[uint64]*sessionState), make(map[string]*mvccpb.KeyValue)
	w.mu.leader, w.mu.term, w.mu.revision = 1, 1, 1
	for id := uint64(1); id <= uint64(members); id++ {
		w.mu.members = append(w.mu.members, &consensuspb.Member{
			Id: id, Name: fmt.Sprintf("m%d", id), PeerUrls: []string{fmt.Sprintf("http://peer-%d", id)},
			ConsensusAddress: consensusAddr(id), StoreAddress: storeAddr(id), LeaseAddress: "nowhere",
		})
		c, s := w.fabric.Server(consensusAddr(id)), w.fabric.Server(storeAddr(id))
		consensuspb.RegisterConsensusServer(c, &consensusServer{w: w, id: id})
		storepb.RegisterStoreServer(s, &storeServer{w: w, id: id})
		w.servers = append(w.servers, c, s)
	}
	t.Cleanup(func() {
		for _, s := range w.servers {
			s.Stop()
		}
	})
	return w
}

func consensusAddr(id uint64) string { return fmt.Sprintf("consensus-%d", id) }
func storeAddr(id uint64) string     { return fmt.Sprintf("store-%d", id) }

// elect makes a member the leader of a new term; 0 is nobody.
func (w *world) elect(leader uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.leader = leader
	w.mu.term++
	w.changedLocked()
}

func (w *world) changedLocked() {
	close(w.mu.changed)
	w.mu.changed = make(chan struct{})
}

// applyLocked applies one payload, and tells the news of it, empty or not.
func (w *world) applyLocked(payload []byte) {
	var b logpb.Batch
	if err := proto.Unmarshal(payload, &b); err != nil {
		panic(err)
	}
	news := &buspb.Batch{ClusterId: clusterID, PrevIndex: w.mu.index, PrevRevision: w.mu.revision}
	w.mu.index++
	w.mu.terms = append(w.mu.terms, w.mu.term)
	if b.Session == 0 {
		var open logpb.SessionOpen
		if err := proto.Unmarshal(b.Commands[0].Body, &open); err != nil {
			panic(err)
		}
		w.mu.sessions[w.mu.index] = &sessionState{open: &open}
	} else if s := w.mu.sessions[b.Session]; s != nil {
		news.Revisions = w.commandsLocked(s, &b)
	}
	news.At, news.Revision = w.positionLocked(), w.mu.revision
	w.mu.news = append(w.mu.news, news)
}

func (w *world) commandsLocked(s *sessionState, b *logpb.Batch) (made []*buspb.Revision) {
	for i, c := range b.Commands {
		if b.FirstSeq+uint64(i) != uint64(len(s.outcomes)+1) {
			continue
		}
		if c.Kind == logpb.Command_PUT {
			made = append(made, w.putLocked(c.Body))
		}
		s.outcomes = append(s.outcomes, &storepb.Outcome{Seq: uint64(len(s.outcomes) + 1), Revision: w.mu.revision, Index: w.mu.index})
	}
	return made
}

func (w *world) putLocked(body []byte) *buspb.Revision {
	var r etcdserverpb.PutRequest
	if err := proto.Unmarshal(body, &r); err != nil {
		panic(err)
	}
	w.mu.revision++
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, ModRevision: w.mu.revision, CreateRevision: w.mu.revision, Version: 1}
	w.mu.keys[string(r.Key)] = kv
	encoded, _ := proto.Marshal(kv)
	return &buspb.Revision{Revision: w.mu.revision, Events: []*buspb.Event{{Key: r.Key, Kv: encoded}}}
}

func (w *world) positionLocked() *logpb.LogID {
	id := &logpb.LogID{Epoch: 1, Index: w.mu.index}
	if id.Index > 0 {
		id.Term = w.mu.terms[id.Index-1]
	}
	return id
}

// each calls send now and after each change, until it fails or ctx ends.
func (w *world) each(ctx context.Context, send func() error) error {
	for {
		w.mu.Lock()
		changed := w.mu.changed
		w.mu.Unlock()
		if err := send(); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond): // an idle publisher speaks
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type consensusServer struct {
	consensuspb.UnimplementedConsensusServer
	w  *world
	id uint64
}

func (c *consensusServer) status() *consensuspb.Status {
	w := c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &consensuspb.Status{
		ClusterId: clusterID, MemberId: c.id, Epoch: 1, Term: w.mu.term, Leader: w.mu.leader,
		Commit: w.mu.index, Last: w.mu.index, Members: slices.Clone(w.mu.members),
	}
	if w.mu.leader == c.id {
		s.Role = consensuspb.Status_LEADER
	}
	return s
}

func (c *consensusServer) GetStatus(context.Context, *consensuspb.GetStatusRequest) (*consensuspb.Status, error) {
	return c.status(), nil
}

func (c *consensusServer) Observe(_ *consensuspb.ObserveRequest, stream consensuspb.Consensus_ObserveServer) error {
	return c.w.each(stream.Context(), func() error { return stream.Send(c.status()) })
}

func (c *consensusServer) ReadIndex(context.Context, *consensuspb.ReadIndexRequest) (*consensuspb.ReadIndexResponse, error) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.w.mu.leader != c.id {
		return nil, errs.ErrNotLeader
	}
	return &consensuspb.ReadIndexResponse{Read: c.w.positionLocked(), Term: c.w.mu.term}, nil
}

func (c *consensusServer) Propose(stream consensuspb.Consensus_ProposeServer) error {
	w := c.w
	w.mu.Lock()
	term, leads := w.mu.term, w.mu.leader == c.id
	w.mu.Unlock()
	if !leads {
		return errs.ErrNotLeader
	}
	if err := stream.Send(&consensuspb.ProposeResponse{Term: term}); err != nil {
		return err
	}
	lost := make(chan struct{})
	go w.each(stream.Context(), func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.mu.term != term {
			close(lost)
			return errs.ErrNotLeader
		}
		return nil
	})
	taken := make(chan error, 1)
	go func() { taken <- c.take(stream, term) }()
	select {
	case <-lost:
		return errs.ErrNotLeader
	case err := <-taken:
		return err
	}
}

func (c *consensusServer) take(stream consensuspb.Consensus_ProposeServer, term uint64) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		c.w.mu.Lock()
		if c.w.mu.term != term {
			c.w.mu.Unlock()
			return errs.ErrNotLeader
		}
		for _, p := range req.Payloads {
			c.w.applyLocked(p)
		}
		c.w.changedLocked()
		c.w.mu.Unlock()
	}
}

type storeServer struct {
	storepb.UnimplementedStoreServer
	w  *world
	id uint64
}

func (s *storeServer) GetStatus(context.Context, *storepb.GetStatusRequest) (*storepb.Status, error) {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	out := &storepb.Status{ClusterId: clusterID, MemberId: s.id, Applied: w.positionLocked(), Revision: w.mu.revision, CompactRevision: -1, DiskBytes: 4096, LiveBytes: 1024}
	for id, session := range w.mu.sessions {
		if len(session.open.ClientUrls) > 0 {
			out.Gateways = append(out.Gateways, &storepb.Gateway{Name: session.open.Owner, Member: session.open.Member, ClientUrls: session.open.ClientUrls, Session: id})
		}
	}
	return out, nil
}

func (s *storeServer) Hash(context.Context, *storepb.HashRequest) (*storepb.HashResponse, error) {
	return &storepb.HashResponse{Hash: 77, HashRevision: 3, CompactRevision: -1, Revision: 4}, nil
}

func (s *storeServer) Outcomes(r *storepb.OutcomesRequest, stream storepb.Store_OutcomesServer) error {
	after, greeted := r.AfterSeq, false
	return s.w.each(stream.Context(), func() error {
		b := s.outcomes(r, after)
		if b == nil || greeted && len(b.Outcomes) == 0 {
			return nil
		}
		greeted = true
		after += uint64(len(b.Outcomes))
		return stream.Send(b)
	})
}

func (s *storeServer) outcomes(r *storepb.OutcomesRequest, after uint64) *storepb.OutcomeBatch {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for id, session := range s.w.mu.sessions {
		if id == r.Session || r.Session == 0 && string(session.open.Nonce) == string(r.Nonce) {
			return &storepb.OutcomeBatch{Session: id, RaftTerm: s.w.mu.term, Last: uint64(len(session.outcomes)), Outcomes: slices.Clone(session.outcomes[after:])}
		}
	}
	return nil
}

func (s *storeServer) Read(stream storepb.Store_ReadServer) error {
	for {
		b, err := stream.Recv()
		if err != nil {
			return nil
		}
		if err := stream.Send(s.read(b)); err != nil {
			return err
		}
	}
}

func (s *storeServer) read(b *storepb.ReadBatch) *storepb.ReadResults {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	out := &storepb.ReadResults{RaftTerm: s.w.mu.term}
	for _, q := range b.Reads {
		result := &storepb.ReadResult{Id: q.Id, Revision: s.w.mu.revision}
		var r etcdserverpb.RangeRequest
		if err := proto.Unmarshal(q.Body, &r); err != nil {
			panic(err)
		}
		resp := &etcdserverpb.RangeResponse{}
		if kv := s.w.mu.keys[string(r.Key)]; kv != nil {
			resp.Kvs, resp.Count = append(resp.Kvs, kv), 1
		}
		result.Body, _ = proto.Marshal(resp)
		out.Results = append(out.Results, result)
	}
	return out
}

// Follow sends the news after a position; after the zero position, only those
// that come after the call.
func (s *storeServer) Follow(r *storepb.FollowRequest, stream storepb.Store_FollowServer) error {
	w := s.w
	w.mu.Lock()
	at := len(w.mu.news)
	if after := r.After.GetIndex(); after > 0 {
		at = int(after) // every index has its batch
	}
	w.mu.Unlock()
	return w.each(stream.Context(), func() error {
		w.mu.Lock()
		fresh := slices.Clone(w.mu.news[at:])
		idle := &buspb.Batch{ClusterId: clusterID, At: w.positionLocked(), PrevIndex: w.mu.index, PrevRevision: w.mu.revision, Revision: w.mu.revision, RaftTerm: w.mu.term}
		w.mu.Unlock()
		at += len(fresh)
		for _, b := range append(fresh, idle) {
			if err := stream.Send(b); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *storeServer) History(r *storepb.HistoryRequest, stream storepb.Store_HistoryServer) error {
	s.w.mu.Lock()
	chunk := &storepb.HistoryChunk{Revision: s.w.mu.revision, Through: s.w.mu.revision, CompactRevision: -1}
	for _, b := range s.w.mu.news {
		for _, rev := range b.Revisions {
			if rev.Revision >= r.From && string(rev.Events[0].Key) == string(r.Key) {
				chunk.Revisions = append(chunk.Revisions, rev)
			}
		}
	}
	s.w.mu.Unlock()
	return stream.Send(chunk)
}

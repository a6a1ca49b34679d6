package lease

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/proto/leasepb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/logid"
	"github.com/quartet-kv/quartet/services/store"
)

// ttlMax is etcd's bound on the seconds of a lease.
const ttlMax = 9_000_000_000

// Proposer puts a command into the log, once, and waits for its outcome.
type Proposer interface {
	Propose(ctx context.Context, kind logpb.Command_Kind, body []byte) (*storepb.Outcome, error)
}

// ReadIndexer says up to where a store must be for a linearizable read.
type ReadIndexer interface {
	Wait(ctx context.Context) (logid.ID, logid.Term, error)
}

// Deps is what the service asks.
type Deps struct {
	Edge    *edge.Edge
	Session Proposer
	Index   ReadIndexer
	Reader  edge.Reader
	// Lessors must be run by the caller.
	Renewer *Renewer
}

// Server is the Lease service.
type Server struct {
	Deps
	etcdserverpb.UnsafeLeaseServer
	ttlMin int64
}

// New returns the service. The election timeout bounds TTLs from below: a lease
// must outlive the choice of a new leader.
func New(d Deps, electionTimeout time.Duration) *Server {
	return &Server{Deps: d, ttlMin: ttlMin(electionTimeout)}
}

// ttlMin is one and a half election timeouts, in whole seconds, rounded up.
func ttlMin(electionTimeout time.Duration) int64 {
	return int64(math.Ceil(1.5 * electionTimeout.Seconds()))
}

// LeaseGrant chooses an id if the client did not, and raises the TTL to the
// least one: from here on it is part of the command.
func (s *Server) LeaseGrant(ctx context.Context, r *etcdserverpb.LeaseGrantRequest) (*etcdserverpb.LeaseGrantResponse, error) {
	if r.TTL > ttlMax {
		return nil, rpctypes.ErrGRPCLeaseTTLTooLarge
	}
	grant := &etcdserverpb.LeaseGrantRequest{ID: r.ID, TTL: max(r.TTL, s.ttlMin)}
	for grant.ID == 0 {
		grant.ID = rand.Int64()
	}
	outcome, err := s.propose(ctx, logpb.Command_LEASE_GRANT, grant)
	if err != nil {
		return nil, err
	}
	resp := &etcdserverpb.LeaseGrantResponse{}
	if err := proto.Unmarshal(outcome.Body, resp); err != nil {
		return nil, err
	}
	resp.Header = s.Edge.Header(outcome.Revision, 0)
	return resp, nil
}

// LeaseRevoke revokes a lease and deletes its keys.
func (s *Server) LeaseRevoke(ctx context.Context, r *etcdserverpb.LeaseRevokeRequest) (*etcdserverpb.LeaseRevokeResponse, error) {
	outcome, err := s.propose(ctx, logpb.Command_LEASE_REVOKE, r)
	if err != nil {
		return nil, err
	}
	return &etcdserverpb.LeaseRevokeResponse{Header: s.Edge.Header(outcome.Revision, 0)}, nil
}

func (s *Server) propose(ctx context.Context, kind logpb.Command_Kind, m proto.Message) (*storepb.Outcome, error) {
	body, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	limited, cancel := s.Edge.Limit(ctx)
	defer cancel()
	outcome, err := s.Session.Propose(limited, kind, body)
	return outcome, edge.WriteError(err)
}

// LeaseTimeToLive answers -1 for a lease that does not exist.
func (s *Server) LeaseTimeToLive(ctx context.Context, r *etcdserverpb.LeaseTimeToLiveRequest) (*etcdserverpb.LeaseTimeToLiveResponse, error) {
	limited, cancel := s.Edge.Limit(ctx)
	defer cancel()
	resp, err := s.timeToLive(limited, r)
	return resp, edge.ReadError(ctx, err)
}

func (s *Server) timeToLive(ctx context.Context, r *etcdserverpb.LeaseTimeToLiveRequest) (*etcdserverpb.LeaseTimeToLiveResponse, error) {
	record, result, err := s.record(ctx, r)
	if err != nil {
		return nil, err
	}
	resp := &etcdserverpb.LeaseTimeToLiveResponse{Header: s.Edge.Header(result.Revision, uint64(result.Term)), ID: r.ID, TTL: -1}
	if record == nil {
		return resp, nil
	}
	left, err := s.Renewer.TimeToLive(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	if left >= 0 {
		resp.TTL = int64(left / time.Second)
		resp.GrantedTTL = record.GrantedTTL
		resp.Keys = record.Keys
	}
	return resp, nil
}

// record reads a lease's record, nil when there is none.
func (s *Server) record(ctx context.Context, r *etcdserverpb.LeaseTimeToLiveRequest) (*etcdserverpb.LeaseTimeToLiveResponse, store.Result, error) {
	at, term, err := s.Index.Wait(ctx)
	if err != nil {
		return nil, store.Result{}, err
	}
	body, err := proto.Marshal(r)
	if err != nil {
		return nil, store.Result{}, err
	}
	result, err := s.Reader.Read(ctx, &storepb.ReadRequest{Kind: storepb.ReadRequest_LEASE, Body: body},
		store.Floor{Index: at.Index, Epoch: at.Epoch, Revision: s.Edge.Floor.Revision()})
	s.Edge.Floor.RaiseTerm(uint64(term))
	if result.ReadResult != nil && isNotFound(err) {
		return nil, result, nil
	}
	if err != nil {
		return nil, result, err
	}
	record := &etcdserverpb.LeaseTimeToLiveResponse{}
	if err := proto.Unmarshal(result.Body, record); err != nil {
		return nil, result, err
	}
	if record.GrantedTTL == 0 {
		return nil, result, nil
	}
	return record, result, nil
}

// LeaseLeases lists leases, the soonest to expire first.
func (s *Server) LeaseLeases(ctx context.Context, _ *etcdserverpb.LeaseLeasesRequest) (*etcdserverpb.LeaseLeasesResponse, error) {
	header, err := s.Edge.Current(ctx, s.Reader)
	if err != nil {
		return nil, err
	}
	limited, cancel := s.Edge.Limit(ctx)
	defer cancel()
	var list *leasepb.ListResponse
	err = s.Renewer.atPrimary(limited, func(ctx context.Context, c leasepb.LessorClient) error {
		list, err = c.List(ctx, &leasepb.ListRequest{})
		return err
	})
	if err != nil {
		return nil, edge.ReadError(ctx, err)
	}
	resp := &etcdserverpb.LeaseLeasesResponse{Header: header}
	for _, id := range list.Ids {
		resp.Leases = append(resp.Leases, &etcdserverpb.LeaseStatus{ID: id})
	}
	return resp, nil
}

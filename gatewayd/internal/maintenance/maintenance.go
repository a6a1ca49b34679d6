// Package maintenance is etcd's Maintenance service. Its calls are about the
// member that the gateway speaks for: its consensusd and its store.
package maintenance

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/cluster"
)

// Directory reaches the daemons of a member.
type Directory interface {
	View() cluster.View
	Consensus(member uint64) (consensuspb.ConsensusClient, error)
	Store(member uint64) (storepb.StoreClient, error)
}

// Deps is what the service asks.
type Deps struct {
	Edge      *edge.Edge
	Directory Directory
	Reader    edge.Reader
	// Version and StorageVersion are those that the gateway reports.
	Version        string
	StorageVersion string
}

// Server is the Maintenance service. Defragment, Snapshot and MoveLeader are
// Unimplemented.
type Server struct {
	Deps
	etcdserverpb.UnimplementedMaintenanceServer
}

// New returns the service.
func New(d Deps) *Server { return &Server{Deps: d} }

// Hash answers with the hash of the member's keys at the current revision.
func (s *Server) Hash(ctx context.Context, _ *etcdserverpb.HashRequest) (*etcdserverpb.HashResponse, error) {
	h, err := s.hash(ctx, 0)
	if err != nil {
		return nil, err
	}
	return &etcdserverpb.HashResponse{Header: s.Edge.Header(h.Revision, 0), Hash: h.Hash}, nil
}

// HashKV answers with the hash of the member's keys at a revision, 0 being the
// current one.
func (s *Server) HashKV(ctx context.Context, r *etcdserverpb.HashKVRequest) (*etcdserverpb.HashKVResponse, error) {
	h, err := s.hash(ctx, r.Revision)
	if err != nil {
		return nil, err
	}
	return &etcdserverpb.HashKVResponse{
		Header:          s.Edge.Header(h.Revision, 0),
		Hash:            h.Hash,
		CompactRevision: h.CompactRevision,
		HashRevision:    h.HashRevision,
	}, nil
}

func (s *Server) hash(ctx context.Context, revision int64) (*storepb.HashResponse, error) {
	limited, cancel := s.Edge.Limit(ctx)
	defer cancel()
	client, err := s.Directory.Store(s.Edge.Identity().MemberID)
	if err != nil {
		return nil, edge.ReadError(ctx, err)
	}
	h, err := client.Hash(limited, &storepb.HashRequest{Revision: revision})
	return h, edge.ReadError(ctx, err)
}

// Alarm lists no alarms, since none can be raised yet; to lower one that is not
// raised is no error. Raising one is Unimplemented.
func (s *Server) Alarm(ctx context.Context, r *etcdserverpb.AlarmRequest) (*etcdserverpb.AlarmResponse, error) {
	if r.Action == etcdserverpb.AlarmRequest_ACTIVATE && r.Alarm != etcdserverpb.AlarmType_NONE {
		return nil, status.Error(codes.Unimplemented, "alarms cannot be raised by hand yet")
	}
	header, err := s.Edge.Current(ctx, s.Reader)
	if err != nil {
		return nil, err
	}
	return &etcdserverpb.AlarmResponse{Header: header}, nil
}

// Downgrade knows only CANCEL, which without a downgrade in flight does
// nothing.
func (s *Server) Downgrade(ctx context.Context, r *etcdserverpb.DowngradeRequest) (*etcdserverpb.DowngradeResponse, error) {
	switch r.Action {
	case etcdserverpb.DowngradeRequest_CANCEL:
	case etcdserverpb.DowngradeRequest_VALIDATE, etcdserverpb.DowngradeRequest_ENABLE:
		return nil, status.Error(codes.Unimplemented, "there is no version to downgrade to")
	default:
		return nil, rpctypes.ErrGRPCWrongDowngradeVersionFormat
	}
	header, err := s.Edge.Current(ctx, s.Reader)
	if err != nil {
		return nil, err
	}
	return &etcdserverpb.DowngradeResponse{Header: header, Version: s.StorageVersion}, nil
}

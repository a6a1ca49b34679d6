package maintenance

import (
	"context"
	"time"

	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/storepb"
)

// quotaBytesDefault is etcd's space quota when none is set.
const quotaBytesDefault = 2 << 30

// askMax bounds each of the two questions behind a Status, so that it answers
// soon about a member that is down.
const askMax = time.Second

// Status tells about the member that the gateway speaks for. It needs neither a
// leader nor the member to be up: what cannot be known is left out and said so
// in errors.
func (s *Server) Status(ctx context.Context, _ *etcdserverpb.StatusRequest) (*etcdserverpb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	resp := &etcdserverpb.StatusResponse{
		Version:        s.Version,
		StorageVersion: s.StorageVersion,
		DbSizeQuota:    quotaBytesDefault,
		DowngradeInfo:  &etcdserverpb.DowngradeInfo{},
	}
	asked := make(chan error, 1)
	var kept *storepb.Status
	go func() {
		var err error
		kept, err = s.storeStatus(ctx)
		asked <- err
	}()
	ordered, err := s.consensusStatus(ctx)
	if err != nil {
		resp.Errors = append(resp.Errors, "consensusd of the member: "+status.Convert(err).Message())
	}
	if err := <-asked; err != nil {
		resp.Errors = append(resp.Errors, "store of the member: "+status.Convert(err).Message())
	}
	s.fill(resp, ordered, kept)
	return resp, nil
}

// fill takes over what the two daemons said, either of which may be nil.
func (s *Server) fill(resp *etcdserverpb.StatusResponse, ordered *consensuspb.Status, kept *storepb.Status) {
	view := s.Directory.View()
	id := s.Edge.Identity().MemberID
	resp.Leader = view.Leader
	if ordered != nil {
		resp.Leader = ordered.Leader
		resp.RaftIndex = ordered.Commit
		resp.IsLearner = ordered.Role == consensuspb.Status_LEARNER
	} else if m, ok := view.Member(id); ok {
		resp.IsLearner = m.Learner
	}
	resp.RaftAppliedIndex = kept.GetApplied().GetIndex()
	// The store may have applied past the commit index that was asked before.
	resp.RaftIndex = max(resp.RaftIndex, resp.RaftAppliedIndex)
	resp.DbSize = kept.GetDiskBytes()
	resp.DbSizeInUse = kept.GetLiveBytes()
	revision := max(kept.GetRevision(), s.Edge.Floor.Revision())
	resp.Header = s.Edge.Header(revision, max(ordered.GetTerm(), uint64(view.Term)))
	resp.RaftTerm = resp.Header.RaftTerm
	if resp.Leader == 0 {
		resp.Errors = append([]string{status.Convert(rpctypes.ErrGRPCNoLeader).Message()}, resp.Errors...)
	}
}

func (s *Server) consensusStatus(ctx context.Context) (*consensuspb.Status, error) {
	client, err := s.Directory.Consensus(s.Edge.Identity().MemberID)
	if err != nil {
		return nil, err
	}
	return client.GetStatus(ctx, &consensuspb.GetStatusRequest{})
}

func (s *Server) storeStatus(ctx context.Context) (*storepb.Status, error) {
	client, err := s.Directory.Store(s.Edge.Identity().MemberID)
	if err != nil {
		return nil, err
	}
	return client.GetStatus(ctx, &storepb.GetStatusRequest{})
}

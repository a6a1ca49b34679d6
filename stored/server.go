package stored

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/logid"
)

// Outcomes implements storepb.StoreServer.
func (s *Stored) Outcomes(req *storepb.OutcomesRequest, g grpc.ServerStreamingServer[storepb.OutcomeBatch]) error {
	return s.hub.Serve(req, g, func(ctx context.Context, index uint64) error {
		epoch := s.state.View().Log.Epoch
		_, err := s.state.Wait(ctx, epoch, logid.Index(index), 0)
		return err
	})
}

// Read implements storepb.StoreServer.
func (s *Stored) Read(g grpc.BidiStreamingServer[storepb.ReadBatch, storepb.ReadResults]) error {
	return s.reads.Read(g)
}

// Scan implements storepb.StoreServer.
func (s *Stored) Scan(req *storepb.ScanRequest, g grpc.ServerStreamingServer[storepb.ScanChunk]) error {
	return s.reads.Scan(req, g)
}

// History implements storepb.StoreServer.
func (s *Stored) History(req *storepb.HistoryRequest, g grpc.ServerStreamingServer[storepb.HistoryChunk]) error {
	return s.reads.History(req, g)
}

// Follow implements storepb.StoreServer.
func (s *Stored) Follow(req *storepb.FollowRequest, g grpc.ServerStreamingServer[buspb.Batch]) error {
	return s.publish.Follow(req, g)
}

// Leases implements storepb.StoreServer.
func (s *Stored) Leases(_ *storepb.LeasesRequest, g grpc.ServerStreamingServer[storepb.LeaseChanges]) error {
	return s.leases.Serve(g)
}

// Hash implements storepb.StoreServer.
func (s *Stored) Hash(ctx context.Context, req *storepb.HashRequest) (*storepb.HashResponse, error) {
	return s.reads.Hash(ctx, req)
}

// WaitCompacted implements storepb.StoreServer.
func (s *Stored) WaitCompacted(ctx context.Context, req *storepb.WaitCompactedRequest) (*storepb.WaitCompactedResponse, error) {
	if err := s.compact.Wait(ctx, req.CompactRevision); err != nil {
		return nil, err
	}
	return &storepb.WaitCompactedResponse{}, nil
}

// Export implements storepb.StoreServer.
func (s *Stored) Export(*storepb.ExportRequest, grpc.ServerStreamingServer[storepb.ExportChunk]) error {
	return status.Error(codes.Unimplemented, "stored: export is not built yet")
}

// GetStatus implements storepb.StoreServer.
func (s *Stored) GetStatus(context.Context, *storepb.GetStatusRequest) (*storepb.Status, error) {
	v, sizes := s.state.View(), s.engine.Sizes()
	return &storepb.Status{
		ClusterId: v.ClusterID, MemberId: s.pipeline.Member(),
		Applied: v.Log.Proto(), Synced: s.engine.Synced().Log.Proto(),
		Revision: v.Revision, CompactRevision: v.Compact, RaftTerm: uint64(v.Term), Stamp: uint64(v.Stamp),
		DiskBytes: sizes.Disk, LiveBytes: min(v.LiveBytes, sizes.Disk), Keys: v.Keys,
		Engine: s.config.Engine, Gateways: s.gateways(), Claim: v.Claim, ClaimMember: v.ClaimMember,
	}, nil
}

// gateways are in the order of their sessions.
func (s *Stored) gateways() []*storepb.Gateway {
	open := s.pipeline.Gateways()
	all := make([]*storepb.Gateway, 0, len(open))
	for id, g := range open {
		all = append(all, &storepb.Gateway{Name: g.Owner, Member: g.Member, ClientUrls: g.ClientURLs, Session: id})
	}
	slices.SortFunc(all, func(a, b *storepb.Gateway) int { return cmp.Compare(a.Session, b.Session) })
	return all
}

package members

import (
	"cmp"
	"context"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/logid"
)

// ReadIndexer says up to where the log is committed.
type ReadIndexer interface {
	Wait(ctx context.Context) (logid.ID, logid.Term, error)
}

// Deps is what the service asks.
type Deps struct {
	Edge      *edge.Edge
	Directory Directory
	Index     ReadIndexer
	// Self is this gateway, listed even while no store answers.
	Self *storepb.Gateway
}

// Server is the Cluster service. Changes of membership are Unimplemented.
type Server struct {
	Deps
	etcdserverpb.UnimplementedClusterServer
}

// New returns the service.
func New(d Deps) *Server { return &Server{Deps: d} }

// MemberList lists members in ascending order of ids. Its header carries no
// revision.
func (s *Server) MemberList(ctx context.Context, r *etcdserverpb.MemberListRequest) (*etcdserverpb.MemberListResponse, error) {
	limited, cancel := s.Edge.Limit(ctx)
	defer cancel()
	if r.Linearizable {
		_, term, err := s.Index.Wait(limited)
		if err != nil {
			return nil, edge.ReadError(ctx, err)
		}
		s.Edge.Floor.RaiseTerm(uint64(term))
	}
	view := s.Directory.View()
	urls := s.clientURLs(limited)
	resp := &etcdserverpb.MemberListResponse{Header: s.Edge.Header(0, uint64(view.Term))}
	for _, m := range view.Members {
		resp.Members = append(resp.Members, &etcdserverpb.Member{
			ID:         m.Id,
			Name:       m.Name,
			PeerURLs:   m.PeerUrls,
			ClientURLs: urls[m.Id],
			// A voter that is being added is a learner to raft alone.
			IsLearner: m.Learner && !m.PendingVoter,
		})
	}
	return resp, nil
}

// clientURLs are the URLs of every gateway, by the member that it speaks for.
func (s *Server) clientURLs(ctx context.Context) map[uint64][]string {
	gateways := []*storepb.Gateway{s.Self}
	if status, err := StoreStatus(ctx, s.Directory, s.Self.Member); err == nil {
		for _, g := range status.Gateways {
			if g.Name != s.Self.Name {
				gateways = append(gateways, g)
			}
		}
	}
	slices.SortFunc(gateways, func(a, b *storepb.Gateway) int { return cmp.Compare(a.Name, b.Name) })
	urls := make(map[uint64][]string)
	for _, g := range gateways {
		for _, u := range g.ClientUrls {
			if !slices.Contains(urls[g.Member], u) {
				urls[g.Member] = append(urls[g.Member], u)
			}
		}
	}
	return urls
}

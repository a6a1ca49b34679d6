// Package auth is etcd's Auth service while authentication cannot be enabled:
// it says so, and nothing else is implemented.
package auth

import (
	"context"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
)

// revisionInitial is the auth revision of a cluster whose auth was never
// changed.
const revisionInitial = 1

// Server is the Auth service.
type Server struct {
	etcdserverpb.UnimplementedAuthServer
	edge   *edge.Edge
	reader edge.Reader
}

// New returns the service.
func New(e *edge.Edge, r edge.Reader) *Server { return &Server{edge: e, reader: r} }

// AuthStatus says that authentication is disabled.
func (s *Server) AuthStatus(ctx context.Context, _ *etcdserverpb.AuthStatusRequest) (*etcdserverpb.AuthStatusResponse, error) {
	header, err := s.edge.Current(ctx, s.reader)
	if err != nil {
		return nil, err
	}
	return &etcdserverpb.AuthStatusResponse{Header: header, AuthRevision: revisionInitial}, nil
}

// Authenticate is refused as by an etcd whose authentication is disabled, so
// that clients with credentials go on without.
func (s *Server) Authenticate(context.Context, *etcdserverpb.AuthenticateRequest) (*etcdserverpb.AuthenticateResponse, error) {
	return nil, rpctypes.ErrGRPCAuthNotEnabled
}

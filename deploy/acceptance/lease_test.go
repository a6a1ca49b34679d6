package acceptance

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// grant grants a lease and returns its id; it is revoked when the test ends.
func (s *scene) grant(ttl int64) int64 {
	s.t.Helper()
	resp, err := s.lease.LeaseGrant(s.ctx, &pb.LeaseGrantRequest{TTL: ttl})
	if err != nil {
		s.t.Fatalf("grant: %v", err)
	}
	return resp.ID
}

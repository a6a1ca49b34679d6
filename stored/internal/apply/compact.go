package apply

import (
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"
)

// applyCompact moves the compact revision. The space is given up later, in the
// background and by each store for itself.
func (m *Machine) applyCompact(body []byte) (result, error) {
	var req etcdserverpb.CompactionRequest
	if err := proto.Unmarshal(body, &req); err != nil {
		return refused(errMalformedBody)
	}
	switch {
	case req.Revision <= m.meta.Compact:
		return refused(rpctypes.ErrGRPCCompacted)
	case req.Revision > m.meta.Revision:
		return refused(rpctypes.ErrGRPCFutureRev)
	}
	m.meta.Compact, m.meta.CompactStamp = req.Revision, uint64(m.pos.Stamp)
	return result{}, nil
}

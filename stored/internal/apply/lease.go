package apply

import (
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/stored/internal/kv"
	"github.com/quartet-kv/quartet/stored/internal/row"
)

// leaseTTLMax is etcd's, in seconds.
const leaseTTLMax = 9_000_000_000

func (m *Machine) applyGrant(body []byte) (result, error) {
	var req etcdserverpb.LeaseGrantRequest
	if err := proto.Unmarshal(body, &req); err != nil {
		return refused(errMalformedBody)
	}
	if req.ID == 0 {
		return refused(rpctypes.ErrGRPCLeaseNotFound)
	}
	if req.TTL > leaseTTLMax {
		return refused(rpctypes.ErrGRPCLeaseTTLTooLarge)
	}
	_, exists, err := m.lookupLease(req.ID)
	if err != nil {
		return result{}, err
	}
	if exists {
		return refused(rpctypes.ErrGRPCLeaseExist)
	}
	m.setLease(req.ID, row.Lease{GrantIndex: uint64(m.pos.Log.Index), TTL: req.TTL}, storepb.LeaseChange_GRANTED)
	response := kv.AppendInt(nil, fieldGrantID, req.ID)
	return result{body: kv.AppendInt(response, fieldGrantTTL, req.TTL)}, nil
}

func (m *Machine) applyRevoke(body []byte) (result, error) {
	var req etcdserverpb.LeaseRevokeRequest
	if err := proto.Unmarshal(body, &req); err != nil {
		return refused(errMalformedBody)
	}
	l, exists, err := m.lookupLease(req.ID)
	if err != nil {
		return result{}, err
	}
	if !exists {
		return refused(rpctypes.ErrGRPCLeaseNotFound)
	}
	return result{}, m.revoke(req.ID, l)
}

// revoke ends a lease and deletes its keys, in one revision.
func (m *Machine) revoke(id int64, l row.Lease) error {
	keys, err := m.attachedKeys(id)
	if err != nil {
		return err
	}
	m.write.begin(false)
	for _, it := range keys {
		m.write.delete(it, m.meta.Revision+1)
	}
	m.commit()
	m.row(row.LeaseKey(id), nil)
	// Remembered as gone until the engine knows it.
	m.leases[id] = row.Lease{}
	m.open.revoked = append(m.open.revoked, id)
	m.leaseChanged(storepb.LeaseChange_REVOKED, id, l)
	return nil
}

func (m *Machine) applyExpire(body []byte) (result, error) {
	var req logpb.LeaseExpire
	if err := proto.Unmarshal(body, &req); err != nil {
		return refused(errMalformedBody)
	}
	if req.Claim != m.meta.Claim {
		return refused(errs.ErrStaleClaim)
	}
	revoked := 0
	for _, fence := range req.Leases {
		l, ok, err := m.fenced(fence)
		if err != nil {
			return result{}, err
		}
		if !ok {
			continue
		}
		if revoked > 0 {
			m.pos.Stamp++ // each makes a revision, and a revision has a stamp of its own
		}
		revoked++
		if err := m.revoke(fence.Id, l); err != nil {
			return result{}, err
		}
	}
	return result{}, nil
}

func (m *Machine) applyCheckpoint(body []byte) (result, error) {
	var req logpb.LeaseCheckpoint
	if err := proto.Unmarshal(body, &req); err != nil {
		return refused(errMalformedBody)
	}
	if req.Claim != m.meta.Claim {
		return refused(errs.ErrStaleClaim)
	}
	seen := make(map[int64]bool, len(req.Leases))
	for _, r := range req.Leases {
		l, ok, err := m.fenced(r.GetLease())
		if err != nil {
			return result{}, err
		}
		if !ok || seen[r.GetLease().GetId()] {
			continue
		}
		seen[r.GetLease().GetId()] = true
		l.Remaining = max(0, r.Seconds)
		m.setLease(r.Lease.Id, l, storepb.LeaseChange_CHECKPOINTED)
	}
	return result{}, nil
}

// fenced returns the lease that a fence names, if it is still that one.
func (m *Machine) fenced(f *logpb.LeaseFence) (row.Lease, bool, error) {
	l, ok, err := m.lookupLease(f.GetId())
	return l, ok && l.GrantIndex == f.GetGrantIndex(), err
}

func (m *Machine) applyClaim(body []byte) (result, error) {
	var req logpb.LessorClaim
	if err := proto.Unmarshal(body, &req); err != nil {
		return refused(errMalformedBody)
	}
	if req.Expected != m.meta.Claim {
		return refused(errs.ErrStaleClaim)
	}
	m.meta.Claim, m.meta.ClaimMember = uint64(m.pos.Log.Index), req.Member
	m.effects.Claimed = true
	return result{}, nil
}

func (m *Machine) setLease(id int64, l row.Lease, op storepb.LeaseChange_Op) {
	m.leases[id] = l
	m.row(row.LeaseKey(id), l.Encode())
	m.leaseChanged(op, id, l)
}

func (m *Machine) leaseChanged(op storepb.LeaseChange_Op, id int64, l row.Lease) {
	m.effects.Leases = append(m.effects.Leases, &storepb.LeaseChange{
		Op: op, Id: id, GrantIndex: l.GrantIndex, Ttl: l.TTL, Remaining: l.Remaining,
	})
}

// forgetRevoked drops what only stood for the engine's not knowing yet.
func (m *Machine) forgetRevoked(b *Batch) {
	for _, id := range b.revoked {
		if l, ok := m.leases[id]; ok && l.GrantIndex == 0 {
			delete(m.leases, id)
		}
	}
}

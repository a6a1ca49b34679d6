// Package membership names members and clusters, and keeps the list of them.
//
// Ids are etcd's own, so that tools which know a cluster by them keep working:
//
//	member id  = first 8 bytes, big endian, of SHA1(sorted peer URLs, joined, then the cluster token)
//	cluster id = first 8 bytes, big endian, of SHA1(sorted member ids, 8 bytes each, big endian)
//
// The list lives in the log: a cluster's first entries add its first members,
// each with its row as context, and so every log begins with the same ones. A
// List is rebuilt from the log's metadata and from the entries after it.
package membership

import (
	"cmp"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/consensuspb"
)

// MemberID is the id of a member with these peer URLs in a cluster that starts
// with this token.
func MemberID(peerURLs []string, token string) uint64 {
	sorted := slices.Sorted(slices.Values(peerURLs))
	sum := sha1.Sum([]byte(strings.Join(sorted, "") + token))
	return binary.BigEndian.Uint64(sum[:8])
}

// ClusterID is the id of a cluster that starts with these members.
func ClusterID(memberIDs []uint64) uint64 {
	b := make([]byte, 0, 8*len(memberIDs))
	for _, id := range slices.Sorted(slices.Values(memberIDs)) {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	sum := sha1.Sum(b)
	return binary.BigEndian.Uint64(sum[:8])
}

// PeerAddress is what to dial for a member: the address part of its first peer
// URL. A peer URL without a scheme is an address already.
func PeerAddress(m *consensuspb.Member) (string, error) {
	if len(m.PeerUrls) == 0 {
		return "", fmt.Errorf("member %s has no peer URL", m.Name)
	}
	raw := m.PeerUrls[0]
	if !strings.Contains(raw, "://") {
		return raw, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("peer URL of member %s: %w", m.Name, err)
	}
	if u.Scheme == "unix" || u.Scheme == "unixs" {
		return "unix:" + u.Host + u.Path, nil
	}
	if u.Host == "" {
		return "", fmt.Errorf("peer URL %s of member %s has no host", raw, m.Name)
	}
	return u.Host, nil
}

// Identity is who a log belongs to. It never changes.
type Identity struct {
	Cluster, Member, Epoch uint64
}

// Static is the first membership of a cluster, from configuration.
type Static struct {
	Token   string
	Members []*consensuspb.Member // ids are filled in by Resolve
}

// Resolve gives every member its id, sorts them by it, and returns the
// identity of the one called name. Every fault of the list is reported.
func (s *Static) Resolve(name string) (Identity, error) {
	var all []error
	names, ids := map[string]bool{}, map[uint64]bool{}
	id := Identity{Epoch: 1}
	for _, m := range s.Members {
		if _, err := PeerAddress(m); err != nil {
			all = append(all, err)
			continue
		}
		m.Id = MemberID(m.PeerUrls, s.Token)
		if names[m.Name] {
			all = append(all, fmt.Errorf("two members are named %q", m.Name))
		}
		if ids[m.Id] {
			all = append(all, fmt.Errorf("member %s has the peer URLs of another", m.Name))
		}
		names[m.Name], ids[m.Id] = true, true
		if m.Name == name {
			id.Member = m.Id
		}
	}
	if id.Member == 0 {
		all = append(all, fmt.Errorf("this member, %q, is not in the list of members", name))
	}
	if err := errors.Join(all...); err != nil {
		return Identity{}, err
	}
	slices.SortFunc(s.Members, func(a, b *consensuspb.Member) int { return cmp.Compare(a.Id, b.Id) })
	members := make([]uint64, len(s.Members))
	for i, m := range s.Members {
		members[i] = m.Id
	}
	id.Cluster = ClusterID(members)
	return id, nil
}

// List is the membership as of an index of the log. It is a value: changes make
// another one, so that a List may be shared.
type List []*consensuspb.Member

// With returns the list with m added, or in place of the row with its id.
func (l List) With(m *consensuspb.Member) List {
	out := slices.DeleteFunc(slices.Clone(l), func(o *consensuspb.Member) bool { return o.Id == m.Id })
	out = append(out, m)
	slices.SortFunc(out, func(a, b *consensuspb.Member) int { return cmp.Compare(a.Id, b.Id) })
	return out
}

// Without returns the list without the member of this id.
func (l List) Without(id uint64) List {
	return slices.DeleteFunc(slices.Clone(l), func(o *consensuspb.Member) bool { return o.Id == id })
}

// Find returns the member of this id, or nil.
func (l List) Find(id uint64) *consensuspb.Member {
	for _, m := range l {
		if m.Id == id {
			return m
		}
	}
	return nil
}

// Readdress returns the list with the addresses of the service daemons as
// configured: who a member is stands in the log, where its daemons listen may
// change between two starts.
func (l List) Readdress(configured []*consensuspb.Member) List {
	out := l
	for _, c := range configured {
		m := l.Find(c.Id)
		if m == nil {
			continue
		}
		m = proto.CloneOf(m)
		m.ConsensusAddress, m.StoreAddress, m.LeaseAddress = c.ConsensusAddress, c.StoreAddress, c.LeaseAddress
		out = out.With(m)
	}
	return out
}

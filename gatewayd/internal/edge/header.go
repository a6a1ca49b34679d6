package edge

import (
	"google.golang.org/protobuf/encoding/protowire"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/gatewayd/internal/wire"
)

// Identity is whom the gateway speaks for in headers and member-bound calls.
type Identity struct {
	ClusterID uint64
	MemberID  uint64
}

// Header is a complete header for a typed response. A revision of 0 stays 0, as
// in member responses.
func (e *Edge) Header(revision int64, term uint64) *etcdserverpb.ResponseHeader {
	return &etcdserverpb.ResponseHeader{
		ClusterId: e.identity.ClusterID,
		MemberId:  e.identity.MemberID,
		Revision:  revision,
		RaftTerm:  e.Floor.Raise(revision, term),
	}
}

// Answer puts a complete header in front of an encoded response without one.
func (e *Edge) Answer(revision int64, term uint64, body []byte) *wire.Response {
	return wire.Join(e.AppendHeader(make([]byte, 0, headerBytesMax+min(len(body), headerBytesMax)), revision, term), body)
}

// headerBytesMax is the size of the largest encoded header field: tag, length
// and four varints with tags.
const headerBytesMax = 2 + 4*11

// AppendHeader appends field 1 of an etcd response, the header, complete.
func (e *Edge) AppendHeader(b []byte, revision int64, term uint64) []byte {
	term = e.Floor.Raise(revision, term)
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	at := len(b)
	b = append(b, 0) // the length, below 128
	b = append(b, e.prefix...)
	if revision != 0 {
		b = protowire.AppendTag(b, 3, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(revision))
	}
	if term != 0 {
		b = protowire.AppendTag(b, 4, protowire.VarintType)
		b = protowire.AppendVarint(b, term)
	}
	b[at] = byte(len(b) - at - 1)
	return b
}

// headerPrefix is the part of a header that never changes.
func headerPrefix(id Identity) []byte {
	var b []byte
	if id.ClusterID != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), id.ClusterID)
	}
	if id.MemberID != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), id.MemberID)
	}
	return b
}

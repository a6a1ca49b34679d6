package row

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/quartet-kv/quartet/services/logid"
)

// Prefixes of the kinds of rows. The byte after each is the end of the kind's
// range.
const (
	PrefixAttachment = 'a'
	PrefixHistory    = 'h'
	PrefixKey        = 'k'
	PrefixLease      = 'l'
	PrefixMeta       = 'm'
	PrefixSession    = 's'
)

// ErrMalformed is returned for a row whose value cannot be what this package
// wrote: damage.
var ErrMalformed = errors.New("row: malformed value")

// Meta is where the state stands as a whole.
type Meta struct {
	ClusterID uint64
	Revision  int64
	// Compact is the compact revision, -1 before the first compaction.
	Compact int64
	// CompactStamp is the stamp of the command that set Compact.
	CompactStamp uint64
	// Hash is the chained hash as of Revision.
	Hash uint64
	// Claim is the index of the current lessor's claim, and ClaimMember who
	// made it; 0 is none.
	Claim       uint64
	ClaimMember uint64
	// Term is the highest raft term applied.
	Term logid.Term
	// Keys and LiveBytes count the present generation: keys, and bytes of their
	// encoded key-values.
	Keys      int64
	LiveBytes int64
}

// Change is one key that a revision changed.
type Change struct {
	Key    []byte
	Delete bool
}

// HistoryChangesMax and HistoryBytesMax bound the changes in one history row, and
// the bytes of their keys but for the last; a revision that changed more has
// further rows.
const (
	HistoryChangesMax = 4096
	HistoryBytesMax   = 1 << 20
)

// History is what a revision's row tells.
type History struct {
	Stamp   uint64
	Hash    uint64
	Changes []Change
}

// Lease is a lease's record.
type Lease struct {
	// GrantIndex is the index of the entry that granted it.
	GrantIndex uint64
	// TTL and Remaining are seconds; Remaining is 0 when the full TTL holds.
	TTL, Remaining int64
}

// Session is an open session's record.
type Session struct {
	Nonce      []byte
	Owner      string
	Member     uint64
	ClientURLs []string
	// Last is the sequence number applied last.
	Last uint64
	// Active is the index of the entry that was applied last.
	Active uint64
}

// MetaKey is the key of the only meta row.
func MetaKey() []byte { return []byte{PrefixMeta} }

// Key is the row of a user's key.
func Key(key []byte) []byte { return append(append(make([]byte, 0, 1+len(key)), PrefixKey), key...) }

// HistoryKey is the row of a revision.
func HistoryKey(revision int64) []byte { return number(PrefixHistory, uint64(revision), 0) }

// HistoryPartKey is the row of a further part of a revision's changes, from 1.
func HistoryPartKey(revision int64, part int) []byte {
	return binary.BigEndian.AppendUint32(number(PrefixHistory, uint64(revision), 4), uint32(part))
}

// IsHistoryPart tells whether a history row continues the one before it.
func IsHistoryPart(key []byte) bool { return len(key) > 1+8 }

// LeaseKey is the row of a lease's record.
func LeaseKey(lease int64) []byte { return number(PrefixLease, uint64(lease), 0) }

// SessionKey is the row of a session.
func SessionKey(session uint64) []byte { return number(PrefixSession, session, 0) }

// AttachmentKey is the row that attaches key to lease; an empty key is the
// start of the lease's attachments.
func AttachmentKey(lease int64, key []byte) []byte {
	return append(number(PrefixAttachment, uint64(lease), len(key)), key...)
}

// AttachmentEnd is the end of the lease's attachments.
func AttachmentEnd(lease int64) []byte {
	if uint64(lease) == ^uint64(0) {
		return []byte{PrefixAttachment + 1}
	}
	return number(PrefixAttachment, uint64(lease)+1, 0)
}

// Number reads the number out of a history, lease, session or attachment key.
func Number(key []byte) uint64 { return binary.BigEndian.Uint64(key[1:9]) }

func number(prefix byte, n uint64, room int) []byte {
	b := make([]byte, 0, 9+room)
	return binary.BigEndian.AppendUint64(append(b, prefix), n)
}

// Present is the value of an attachment: there is nothing to say but that it
// is there.
func Present() []byte { return []byte{1} }

// Encode returns the meta row's value.
func (m *Meta) Encode() []byte {
	b := make([]byte, 0, 96)
	b = binary.AppendUvarint(b, m.ClusterID)
	b = binary.AppendVarint(b, m.Revision)
	b = binary.AppendVarint(b, m.Compact)
	b = binary.AppendUvarint(b, m.CompactStamp)
	b = binary.AppendUvarint(b, m.Hash)
	b = binary.AppendUvarint(b, m.Claim)
	b = binary.AppendUvarint(b, m.ClaimMember)
	b = binary.AppendUvarint(b, uint64(m.Term))
	b = binary.AppendVarint(b, m.Keys)
	return binary.AppendVarint(b, m.LiveBytes)
}

// DecodeMeta reads a meta row's value.
func DecodeMeta(b []byte) (Meta, error) {
	var m Meta
	r := reader{b: b}
	m.ClusterID = r.uvarint()
	m.Revision = r.varint()
	m.Compact = r.varint()
	m.CompactStamp = r.uvarint()
	m.Hash = r.uvarint()
	m.Claim = r.uvarint()
	m.ClaimMember = r.uvarint()
	m.Term = logid.Term(r.uvarint())
	m.Keys = r.varint()
	m.LiveBytes = r.varint()
	return m, r.end("meta")
}

// Kinds of changes in a history row.
const (
	changePut    = 0
	changeDelete = 1
)

// Encode returns the history row's value.
func (h *History) Encode() []byte {
	size := 2 * binary.MaxVarintLen64
	for _, c := range h.Changes {
		size += 1 + binary.MaxVarintLen32 + len(c.Key)
	}
	b := make([]byte, 0, size)
	b = binary.AppendUvarint(b, h.Stamp)
	b = binary.AppendUvarint(b, h.Hash)
	for _, c := range h.Changes {
		kind := byte(changePut)
		if c.Delete {
			kind = changeDelete
		}
		b = append(b, kind)
		b = appendBytes(b, c.Key)
	}
	return b
}

// DecodeHistory reads a history row's value; the keys alias it.
func DecodeHistory(b []byte) (History, error) {
	var h History
	r := reader{b: b}
	h.Stamp = r.uvarint()
	h.Hash = r.uvarint()
	for r.err == nil && len(r.b) > 0 {
		kind := r.byte()
		if kind > changeDelete {
			r.err = ErrMalformed
		}
		h.Changes = append(h.Changes, Change{Key: r.bytes(), Delete: kind == changeDelete})
	}
	return h, r.end("history")
}

// Encode returns the lease row's value.
func (l *Lease) Encode() []byte {
	b := make([]byte, 0, 3*binary.MaxVarintLen64)
	b = binary.AppendUvarint(b, l.GrantIndex)
	b = binary.AppendVarint(b, l.TTL)
	return binary.AppendVarint(b, l.Remaining)
}

// DecodeLease reads a lease row's value.
func DecodeLease(b []byte) (Lease, error) {
	var l Lease
	r := reader{b: b}
	l.GrantIndex = r.uvarint()
	l.TTL = r.varint()
	l.Remaining = r.varint()
	return l, r.end("lease")
}

// Encode returns the session row's value.
func (s *Session) Encode() []byte {
	b := make([]byte, 0, 64+len(s.Owner))
	b = binary.AppendUvarint(b, s.Last)
	b = binary.AppendUvarint(b, s.Active)
	b = binary.AppendUvarint(b, s.Member)
	b = appendBytes(b, s.Nonce)
	b = appendBytes(b, []byte(s.Owner))
	for _, url := range s.ClientURLs {
		b = appendBytes(b, []byte(url))
	}
	return b
}

// DecodeSession reads a session row's value.
func DecodeSession(b []byte) (Session, error) {
	var s Session
	r := reader{b: b}
	s.Last = r.uvarint()
	s.Active = r.uvarint()
	s.Member = r.uvarint()
	s.Nonce = append([]byte(nil), r.bytes()...)
	s.Owner = string(r.bytes())
	for r.err == nil && len(r.b) > 0 {
		s.ClientURLs = append(s.ClientURLs, string(r.bytes()))
	}
	return s, r.end("session")
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// reader takes values off a row; after an error it returns zeroes.
type reader struct {
	b   []byte
	err error
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	return v * uint64(r.skip(n))
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	return v * int64(r.skip(n))
}

// skip passes n bytes, as binary.Uvarint counts them, and is 1 if it could.
func (r *reader) skip(n int) int {
	if r.err != nil || n <= 0 {
		r.err = ErrMalformed
		return 0
	}
	r.b = r.b[n:]
	return 1
}

func (r *reader) byte() byte {
	if r.err != nil || len(r.b) == 0 {
		r.err = ErrMalformed
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if r.err != nil || n > uint64(len(r.b)) {
		r.err = ErrMalformed
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) end(kind string) error {
	if r.err == nil && len(r.b) > 0 {
		r.err = ErrMalformed
	}
	if r.err != nil {
		return fmt.Errorf("%s: %w", kind, r.err)
	}
	return nil
}

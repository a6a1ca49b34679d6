// Package kv turns key-values into bytes and back. A row of a key holds an
// encoded mvccpb.KeyValue, which is also what events and answers carry, so that
// a key-value is encoded once, when its put is applied.
//
// In memory a key-value is a keyspace.Item. Equal items have equal bytes: zero
// fields are left out and fields stand in the order of their numbers, as the
// protobuf library writes them.
package kv

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/quartet-kv/quartet/services/keyspace"
)

// ErrMalformed is returned by Parse for bytes that are not a KeyValue: damage,
// since only Encode writes them.
var ErrMalformed = errors.New("kv: malformed key-value")

// Numbers of mvccpb.KeyValue's fields.
const (
	fieldKey     = 1
	fieldCreate  = 2
	fieldMod     = 3
	fieldVersion = 4
	fieldValue   = 5
	fieldLease   = 6
)

// Encode returns the encoded key-value in a slice of its own.
func Encode(it *keyspace.Item) []byte {
	return Append(make([]byte, 0, Size(it)), it)
}

// EncodeDelete returns what the event of a delete carries: the key and the
// revision that deleted it.
func EncodeDelete(key []byte, revision int64) []byte {
	return Encode(&keyspace.Item{Key: key, Mod: revision})
}

// Size is the length of the encoded key-value.
func Size(it *keyspace.Item) int {
	return sizeBytes(len(it.Key)) + sizeInt(it.Create) + sizeInt(it.Mod) + sizeInt(it.Version) + sizeBytes(len(it.Value)) + sizeInt(it.Lease)
}

// Append appends the encoded key-value.
func Append(b []byte, it *keyspace.Item) []byte {
	b = appendBytes(b, fieldKey, it.Key)
	b = AppendInt(b, fieldCreate, it.Create)
	b = AppendInt(b, fieldMod, it.Mod)
	b = AppendInt(b, fieldVersion, it.Version)
	b = appendBytes(b, fieldValue, it.Value)
	return AppendInt(b, fieldLease, it.Lease)
}

// AppendField appends the encoded key-value as field num of a message.
func AppendField(b []byte, num protowire.Number, it *keyspace.Item) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(Size(it)))
	return Append(b, it)
}

// FieldSize is what AppendField adds, for a field number below 16.
func FieldSize(it *keyspace.Item) int { return 1 + protowire.SizeBytes(Size(it)) }

// AppendInt appends an integer as field num of a message; nothing for zero.
func AppendInt(b []byte, num protowire.Number, v int64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(v))
}

// Parse decodes an encoded key-value. The item's slices are parts of enc.
func Parse(enc []byte) (keyspace.Item, error) {
	var it keyspace.Item
	for len(enc) > 0 {
		num, typ, n := protowire.ConsumeTag(enc)
		if n < 0 {
			return keyspace.Item{}, ErrMalformed
		}
		enc = enc[n:]
		switch typ {
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(enc)
			if n < 0 {
				return keyspace.Item{}, ErrMalformed
			}
			enc = enc[n:]
			setBytes(&it, num, v)
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(enc)
			if n < 0 {
				return keyspace.Item{}, ErrMalformed
			}
			enc = enc[n:]
			setInt(&it, num, int64(v))
		default:
			return keyspace.Item{}, ErrMalformed
		}
	}
	if len(it.Key) == 0 {
		return keyspace.Item{}, ErrMalformed
	}
	return it, nil
}

func setBytes(it *keyspace.Item, num protowire.Number, v []byte) {
	switch num {
	case fieldKey:
		it.Key = v
	case fieldValue:
		it.Value = v
	}
}

func setInt(it *keyspace.Item, num protowire.Number, v int64) {
	switch num {
	case fieldCreate:
		it.Create = v
	case fieldMod:
		it.Mod = v
	case fieldVersion:
		it.Version = v
	case fieldLease:
		it.Lease = v
	}
}

func sizeBytes(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(n)
}

func sizeInt(v int64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(uint64(v))
}

func appendBytes(b []byte, num protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendBytes(b, v)
}

// AppendMessage appends an encoded message as field num of another.
func AppendMessage(b []byte, num protowire.Number, message []byte) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendBytes(b, message)
}

// Numbers of the header of etcd's responses, and of its revision.
const (
	FieldHeader         = 1
	fieldHeaderRevision = 3
)

// AppendHeader appends the header of a response within a transaction, which has
// a revision only.
func AppendHeader(b []byte, revision int64) []byte {
	var header [16]byte
	return AppendMessage(b, FieldHeader, AppendInt(header[:0], fieldHeaderRevision, revision))
}

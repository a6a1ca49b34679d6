package badger

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// First byte of every key. Badger refuses keys that begin like its own, so a
// caller's key never stands first.
const (
	rowPrefix   = 'r'
	chunkPrefix = 'c'
)

// First byte of every value, which also keeps it from being empty.
const (
	kindInline  = 1
	kindChunked = 2
	kindChunk   = 3
)

const (
	// chunkBytesMax is the largest piece of a value in one of Badger's. It must
	// fit a batch of the smallest memtable, and stay below valueLogThreshold.
	chunkBytesMax = 256 << 10
	// valueLogThreshold is the size from which Badger would move a value out.
	valueLogThreshold = 512 << 10
	// headBytes: kind and checksum.
	headBytes = 5
	// chunkedBytes: number of chunks and bytes of the value.
	chunkedBytes = 12
	// chunkSuffixBytes follow the key of a chunk. Their number is fixed, so no
	// two keys share a chunk.
	chunkSuffixBytes = 4
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// checksum of a row or a chunk: of all that identifies it and all it holds.
func checksum(key []byte, s engine.Stamp, index uint32, body []byte) uint32 {
	var id [12]byte
	binary.BigEndian.PutUint64(id[:], uint64(s))
	binary.BigEndian.PutUint32(id[8:], index)
	table := castagnoli()
	sum := crc32.Update(0, table, id[:])
	sum = crc32.Update(sum, table, key)
	return crc32.Update(sum, table, body)
}

// appendRowKey appends Badger's key of a row.
func appendRowKey(buf, key []byte) []byte {
	return append(append(buf, rowPrefix), key...)
}

// appendChunkKey appends Badger's key of a chunk.
func appendChunkKey(buf, key []byte, index uint32) []byte {
	return binary.BigEndian.AppendUint32(append(append(buf, chunkPrefix), key...), index)
}

// appendValue appends one of Badger's values.
func appendValue(buf []byte, kind byte, key []byte, s engine.Stamp, index uint32, body []byte) []byte {
	buf = append(buf, kind)
	buf = binary.BigEndian.AppendUint32(buf, checksum(key, s, index, body))
	return append(buf, body...)
}

// splitValue checks one of Badger's values and returns what it holds.
func splitValue(raw, key []byte, s engine.Stamp, index uint32) (kind byte, body []byte, err error) {
	if len(raw) < headBytes {
		return 0, nil, fmt.Errorf("badger: value of %q@%d has %d bytes: %w", key, s, len(raw), engine.ErrCorrupt)
	}
	kind, body = raw[0], raw[headBytes:]
	if binary.BigEndian.Uint32(raw[1:]) != checksum(key, s, index, body) {
		return 0, nil, fmt.Errorf("badger: checksum of %q@%d: %w", key, s, engine.ErrCorrupt)
	}
	return kind, body, nil
}

// chunks is how many a value is cut into; 0 if it is kept whole.
func chunks(value []byte) int {
	if len(value) <= chunkBytesMax {
		return 0
	}
	return (len(value) + chunkBytesMax - 1) / chunkBytesMax
}

// chunk returns one piece of a value.
func chunk(value []byte, index int) []byte {
	lo := index * chunkBytesMax
	return value[lo:min(lo+chunkBytesMax, len(value))]
}

// chunkCount is how many chunks a row's value says it has.
func chunkCount(raw, key []byte, s engine.Stamp) (uint32, error) {
	kind, body, err := splitValue(raw, key, s, 0)
	if err != nil || kind != kindChunked || len(body) != chunkedBytes {
		return 0, err
	}
	return binary.BigEndian.Uint32(body), nil
}

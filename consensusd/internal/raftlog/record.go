package raftlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"go.etcd.io/raft/v3/raftpb"
)

// A record is a header, a payload, and zeros up to a multiple of 8 bytes.
//
//	0   crc     u32  CRC32C of the salt, then of bytes 4… including the padding
//	4   length  u32  of the payload
//	8   magic   u16
//	10  type    u8
//	11  flags   u8   flagEnd on the last record of a batch
//	12  synced  u32  offset in this segment that was durable when this was written
//
// The salt is made of the segment's number and the record's offset: a record is valid
// only where it was written. Integers are little endian.
const (
	headerBytes = 16
	alignment   = 8
	magic       = 0x4c51
	flagEnd     = 1

	formatVersion = 1
)

type recordType uint8

const (
	recordSegment   recordType = 1 + iota // version u32, seq u64, last index u64, its term u64
	recordMeta                            // opaque
	recordHardState                       // term u64, vote u64, commit u64
	recordSnapshot                        // raftpb.Snapshot; entries up to its index are dropped
	recordReset                           // raftpb.Snapshot; all entries are dropped
	recordEntry                           // index u64, term u64, type u8, data
	recordSeal                            // seq of the next segment u64
	recordMark                            // empty; says how far the segment is durable
	recordTypeEnd
)

const (
	segmentPayload   = 28
	hardStatePayload = 24
	entryFixed       = 17
)

func padded(n int) int { return (n + alignment - 1) &^ (alignment - 1) }

// entrySize is what an entry takes in a segment.
func entrySize(e *raftpb.Entry) int { return padded(headerBytes + entryFixed + len(e.Data)) }

// salt is what a record's checksum begins with, so that the same bytes are not
// valid in another place. (A finaliser of splitmix64: every bit of the place
// changes the salt.)
func salt(seq uint64, off int64) uint32 {
	x := seq*0x9e3779b97f4a7c15 + uint64(off)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return uint32(x ^ x>>31)
}

// castagnoli is the table that selects the processor's own instruction;
// MakeTable hands out one shared copy of it.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// encoder lays out one batch of records for one position of a segment.
type encoder struct {
	buf    []byte
	seq    uint64
	base   int64 // offset in the segment of buf[0]
	synced int64
	open   int // start of the record being written, -1 for none
	slots  []slot
}

// start begins a batch at an offset of a segment that is durable up to synced.
func (e *encoder) start(seq uint64, base, synced int64) {
	if cap(e.buf) > bufferBytesKept {
		e.buf = nil
	}
	e.buf, e.slots = e.buf[:0], e.slots[:0]
	e.seq, e.base, e.synced, e.open = seq, base, synced, -1
}

func (e *encoder) begin(t recordType) {
	e.close(0)
	e.open = len(e.buf)
	var h [headerBytes]byte
	binary.LittleEndian.PutUint16(h[8:], magic)
	h[10] = byte(t)
	binary.LittleEndian.PutUint32(h[12:], uint32(e.synced))
	e.buf = append(e.buf, h[:]...)
}

func (e *encoder) close(flags byte) {
	if e.open < 0 {
		return
	}
	length := len(e.buf) - e.open - headerBytes
	for len(e.buf)%alignment != 0 {
		e.buf = append(e.buf, 0)
	}
	r := e.buf[e.open:]
	binary.LittleEndian.PutUint32(r[4:], uint32(length))
	r[11] = flags
	binary.LittleEndian.PutUint32(r, crc32.Update(salt(e.seq, e.base+int64(e.open)), castagnoli(), r[4:]))
	e.open = -1
}

// finish ends the batch and returns its bytes, which are valid until start.
func (e *encoder) finish() []byte {
	e.close(flagEnd)
	return e.buf
}

func (e *encoder) u64(v uint64) { e.buf = binary.LittleEndian.AppendUint64(e.buf, v) }

func (e *encoder) segment(last, lastTerm uint64) {
	e.begin(recordSegment)
	e.buf = binary.LittleEndian.AppendUint32(e.buf, formatVersion)
	e.u64(e.seq)
	e.u64(last)
	e.u64(lastTerm)
}

func (e *encoder) bytes(t recordType, b []byte) {
	e.begin(t)
	e.buf = append(e.buf, b...)
}

func (e *encoder) hardState(hs hardState) {
	e.begin(recordHardState)
	e.u64(hs.term)
	e.u64(hs.vote)
	e.u64(hs.commit)
}

func (e *encoder) entry(ent *raftpb.Entry) {
	e.begin(recordEntry)
	e.slots = append(e.slots, slot{off: uint32(e.base + int64(e.open)), data: uint32(len(ent.Data))})
	e.u64(ent.GetIndex())
	e.u64(ent.GetTerm())
	e.buf = append(e.buf, byte(ent.GetType()))
	e.buf = append(e.buf, ent.Data...)
}

func (e *encoder) seal(next uint64) {
	e.begin(recordSeal)
	e.u64(next)
}

// record is one parsed record; payload shares the parsed bytes.
type record struct {
	typ     recordType
	end     bool
	synced  int64
	payload []byte
	size    int // with header and padding
}

// recordSize reads how long the record with this header is; 0 when the header
// cannot be one.
func recordSize(h []byte) int {
	if len(h) < headerBytes || binary.LittleEndian.Uint16(h[8:]) != magic {
		return 0
	}
	if t := recordType(h[10]); t == 0 || t >= recordTypeEnd || h[11]&^flagEnd != 0 {
		return 0
	}
	length := binary.LittleEndian.Uint32(h[4:])
	if length > batchBytesMax {
		return 0
	}
	return padded(headerBytes + int(length))
}

// parse reads the record at the start of b, which lies at off in segment seq.
func parse(b []byte, seq uint64, off int64) (record, bool) {
	size := recordSize(b)
	if size == 0 || size > len(b) {
		return record{}, false
	}
	if crc32.Update(salt(seq, off), castagnoli(), b[4:size]) != binary.LittleEndian.Uint32(b) {
		return record{}, false
	}
	return record{
		typ:     recordType(b[10]),
		end:     b[11]&flagEnd != 0,
		synced:  int64(binary.LittleEndian.Uint32(b[12:])),
		payload: b[headerBytes : headerBytes+binary.LittleEndian.Uint32(b[4:]) : headerBytes+binary.LittleEndian.Uint32(b[4:])],
		size:    size,
	}, true
}

// entryHead is the fixed part of an entry's payload.
type entryHead struct {
	index, term uint64
	typ         raftpb.EntryType
}

func (r record) entry() (entryHead, []byte, error) {
	if r.typ != recordEntry || len(r.payload) < entryFixed {
		return entryHead{}, nil, fmt.Errorf("record of type %d and %d bytes where an entry was expected", r.typ, len(r.payload))
	}
	h := entryHead{
		index: binary.LittleEndian.Uint64(r.payload),
		term:  binary.LittleEndian.Uint64(r.payload[8:]),
		typ:   raftpb.EntryType(r.payload[16]),
	}
	if len(r.payload) == entryFixed {
		return h, nil, nil
	}
	return h, r.payload[entryFixed:], nil
}

// hardState is raft's, as values; the zero value is none.
type hardState struct{ term, vote, commit uint64 }

func hardStateOf(hs *raftpb.HardState) hardState {
	return hardState{hs.GetTerm(), hs.GetVote(), hs.GetCommit()}
}

func (hs hardState) proto() *raftpb.HardState {
	if hs == (hardState{}) {
		return nil
	}
	return &raftpb.HardState{Term: &hs.term, Vote: &hs.vote, Commit: &hs.commit}
}

func (r record) hardState() (hardState, error) {
	if len(r.payload) != hardStatePayload {
		return hardState{}, fmt.Errorf("hard state of %d bytes", len(r.payload))
	}
	return hardState{
		binary.LittleEndian.Uint64(r.payload),
		binary.LittleEndian.Uint64(r.payload[8:]),
		binary.LittleEndian.Uint64(r.payload[16:]),
	}, nil
}

func (r record) segment() (seq, last, lastTerm uint64, err error) {
	if r.typ != recordSegment || len(r.payload) != segmentPayload {
		return 0, 0, 0, fmt.Errorf("the segment does not begin with its header")
	}
	if v := binary.LittleEndian.Uint32(r.payload); v != formatVersion {
		return 0, 0, 0, fmt.Errorf("format version %d, this build reads %d", v, formatVersion)
	}
	return binary.LittleEndian.Uint64(r.payload[4:]), binary.LittleEndian.Uint64(r.payload[12:]), binary.LittleEndian.Uint64(r.payload[20:]), nil
}

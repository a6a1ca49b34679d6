package watch

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/proto/buspb"
)

// Field numbers of etcdserverpb.WatchResponse and mvccpb.Event.
const (
	fieldHeader   = 1
	fieldWatchID  = 2
	fieldFragment = 7
	fieldEvents   = 11

	fieldEventType   = 1
	fieldEventKV     = 2
	fieldEventPrevKV = 3
)

// Message is one WatchResponse as it goes on the wire. The server's codec sends
// Buffers as they are; many streams may share them.
type Message struct {
	buffers mem.BufferSlice
	bytes   int
	few     [3]mem.Buffer // room for the common case
}

// Buffers is the encoded response. It must not be changed.
func (m *Message) Buffers() mem.BufferSlice { return m.buffers }

// newMessage puts a response together: an encoded header, the watch id, and
// encoded events.
func newMessage(header, id mem.Buffer, fragment bool, events []mem.Buffer) *Message {
	m := &Message{}
	m.buffers = m.few[:0]
	if n := len(events) + 3; n > len(m.few)+1 {
		m.buffers = make(mem.BufferSlice, 0, n)
	}
	m.add(header)
	if id != nil {
		m.add(id)
	}
	if fragment {
		m.add(fragmentField)
	}
	for _, ev := range events {
		m.add(ev)
	}
	return m
}

func (m *Message) add(b mem.Buffer) {
	m.buffers = append(m.buffers, b)
	m.bytes += b.Len()
}

// controlMessage encodes a response without events.
func controlMessage(r *pb.WatchResponse) *Message {
	b, err := proto.Marshal(r)
	if err != nil {
		panic("watch: encode a control response: " + err.Error())
	}
	m := &Message{}
	m.buffers = m.few[:0]
	m.add(mem.SliceBuffer(b))
	return m
}

var fragmentField mem.Buffer = mem.SliceBuffer(protowire.AppendVarint(protowire.AppendTag(nil, fieldFragment, protowire.VarintType), 1))

// headerField encodes a response's header.
func headerField(h *pb.ResponseHeader) mem.Buffer {
	size := proto.Size(h)
	b := make([]byte, 0, size+4)
	b = protowire.AppendTag(b, fieldHeader, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, h)
	if err != nil {
		panic("watch: encode a header: " + err.Error())
	}
	return mem.SliceBuffer(b)
}

// idField encodes a watch id; nil for 0, which the wire leaves out.
func idField(id int64) mem.Buffer {
	if id == 0 {
		return nil
	}
	return mem.SliceBuffer(protowire.AppendVarint(protowire.AppendTag(nil, fieldWatchID, protowire.VarintType), uint64(id)))
}

// encodeEvents encodes events as fields of a WatchResponse, one buffer each, in
// one piece of memory.
func encodeEvents(events []*buspb.Event, prev bool) []mem.Buffer {
	total := 0
	for _, ev := range events {
		inner := eventSize(ev, prev)
		total += protowire.SizeTag(fieldEvents) + protowire.SizeBytes(inner)
	}
	b := make([]byte, 0, total)
	out := make([]mem.Buffer, len(events))
	for i, ev := range events {
		start := len(b)
		b = protowire.AppendTag(b, fieldEvents, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(eventSize(ev, prev)))
		b = appendEvent(b, ev, prev)
		out[i] = mem.SliceBuffer(b[start:len(b):len(b)])
	}
	return out
}

func eventSize(ev *buspb.Event, prev bool) int {
	n := protowire.SizeTag(fieldEventKV) + protowire.SizeBytes(len(ev.Kv))
	if ev.Delete {
		n += protowire.SizeTag(fieldEventType) + protowire.SizeVarint(1)
	}
	if prev && len(ev.PrevKv) > 0 {
		n += protowire.SizeTag(fieldEventPrevKV) + protowire.SizeBytes(len(ev.PrevKv))
	}
	return n
}

func appendEvent(b []byte, ev *buspb.Event, prev bool) []byte {
	if ev.Delete {
		b = protowire.AppendVarint(protowire.AppendTag(b, fieldEventType, protowire.VarintType), 1)
	}
	b = protowire.AppendBytes(protowire.AppendTag(b, fieldEventKV, protowire.BytesType), ev.Kv)
	if prev && len(ev.PrevKv) > 0 {
		b = protowire.AppendBytes(protowire.AppendTag(b, fieldEventPrevKV, protowire.BytesType), ev.PrevKv)
	}
	return b
}

// join copies encoded events into one buffer.
func join(events []mem.Buffer) mem.Buffer {
	if len(events) == 1 {
		return events[0]
	}
	return mem.SliceBuffer(mem.BufferSlice(events).Materialize())
}

func size(events []mem.Buffer) int {
	n := 0
	for _, ev := range events {
		n += ev.Len()
	}
	return n
}

// response is what one watcher gets at a time: a message, or its pieces, which
// nothing may come between.
type response struct {
	message *Message
	rest    []*Message
	bytes   int
	events  int
}

// respond makes a response of encoded events, in pieces if they may be cut and
// together reach the limit.
func respond(header, id mem.Buffer, events []mem.Buffer, fragmentBytes int) response {
	whole := header.Len() + size(events)
	if id != nil {
		whole += id.Len()
	}
	if fragmentBytes == 0 || whole < fragmentBytes || len(events) < 2 {
		m := newMessage(header, id, false, events)
		return response{message: m, bytes: m.bytes, events: len(events)}
	}
	r := response{events: len(events)}
	fixed := whole - size(events) + fragmentField.Len()
	for first := 0; first < len(events); {
		next, bytes := first+1, fixed+events[first].Len()
		for next < len(events) && bytes+events[next].Len() < fragmentBytes {
			bytes += events[next].Len()
			next++
		}
		r.addPiece(newMessage(header, id, next < len(events), events[first:next]))
		first = next
	}
	return r
}

func (r *response) addPiece(m *Message) {
	r.bytes += m.bytes
	if r.message == nil {
		r.message = m
		return
	}
	r.rest = append(r.rest, m)
}

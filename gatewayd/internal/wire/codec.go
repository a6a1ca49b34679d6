package wire

import (
	"google.golang.org/grpc/encoding"
	// The codec underneath registers itself.
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/runtime/protoiface"
)

// Codec is protobuf that also knows Request and whatever is Encoded.
type Codec struct{ encoding.CodecV2 }

// NewCodec returns the codec for grpc.ForceServerCodecV2.
func NewCodec() Codec { return Codec{encoding.GetCodecV2(grpcproto.Name)} }

// Marshal implements encoding.CodecV2.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(Encoded); ok {
		return e.Buffers(), nil
	}
	return c.CodecV2.Marshal(v)
}

// Encoded is a message that is bytes already. They must not change, and may be
// shared between messages.
type Encoded interface{ Buffers() mem.BufferSlice }

// Unmarshal implements encoding.CodecV2.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(receiver); ok {
		// A copy: gRPC takes its buffers back.
		return r.receive(data.Materialize())
	}
	return c.CodecV2.Unmarshal(data, v)
}

// receiver is implemented by every Request.
type receiver interface{ receive(raw []byte) error }

// Message is a pointer to a generated struct M.
type Message[M any] interface {
	*M
	proto.Message
}

// Request is a decoded message beside its encoding. Both are immutable.
type Request[M any, P Message[M]] struct {
	Msg M
	Raw []byte
}

// Message is the decoded message.
func (r *Request[M, P]) Message() P { return P(&r.Msg) }

func (r *Request[M, P]) receive(raw []byte) error {
	r.Raw = raw
	return unmarshalAliased(raw, P(&r.Msg))
}

// recursionMax is protobuf's own bound on nesting.
const recursionMax = 10000

// unmarshalAliased decodes without copying byte fields out of raw.
func unmarshalAliased(raw []byte, m proto.Message) error {
	methods := m.ProtoReflect().ProtoMethods()
	if methods == nil || methods.Unmarshal == nil {
		return proto.Unmarshal(raw, m)
	}
	_, err := methods.Unmarshal(protoiface.UnmarshalInput{
		Message:  m.ProtoReflect(),
		Buf:      raw,
		Flags:    protoiface.UnmarshalAliasBuffer,
		Resolver: protoregistry.GlobalTypes,
		Depth:    recursionMax,
	})
	return err
}

// Response is an encoded message in parts; the parts must not change once it
// was returned or sent.
type Response struct{ Parts [][]byte }

// Buffers implements Encoded.
func (r *Response) Buffers() mem.BufferSlice {
	out := make(mem.BufferSlice, 0, len(r.Parts))
	for _, p := range r.Parts {
		if len(p) > 0 {
			out = append(out, mem.SliceBuffer(p))
		}
	}
	return out
}

// joinBytesMax is the size up to which copying is cheaper than one more buffer.
const joinBytesMax = 1 << 10

// Join makes a Response of a head, which it may append to, and a body.
func Join(head, body []byte) *Response {
	if len(body) <= joinBytesMax {
		return &Response{Parts: [][]byte{append(head, body...)}}
	}
	return &Response{Parts: [][]byte{head, body}}
}

package apply

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/quartet-kv/quartet/proto/logpb"
)

var errMalformed = errors.New("apply: malformed payload")

// payload is a decoded logpb.Batch; bodies are parts of the entry's payload.
type payload struct {
	session, first, acked uint64
	commands              []command
}

type command struct {
	kind logpb.Command_Kind
	body []byte
}

// decode reads a payload into p, which is reused. Unlike the protobuf library
// it copies nothing.
func (p *payload) decode(b []byte) error {
	p.session, p.first, p.acked = 0, 0, 0
	p.commands = p.commands[:0]
	return fields(b, func(num protowire.Number, v uint64, body []byte) error {
		switch num {
		case 1:
			p.session = v
		case 2:
			p.first = v
		case 3:
			p.acked = v
		case 4:
			var c command
			err := fields(body, func(num protowire.Number, v uint64, body []byte) error {
				switch num {
				case 1:
					c.kind = logpb.Command_Kind(v)
				case 2:
					c.body = body
				}
				return nil
			})
			p.commands = append(p.commands, c)
			return err
		}
		return nil
	})
}

// putRequest is an etcdserverpb.PutRequest whose slices are parts of the body.
type putRequest struct {
	key, value                       []byte
	lease                            int64
	prevKV, ignoreValue, ignoreLease bool
}

func (r *putRequest) decode(b []byte) error {
	*r = putRequest{}
	return fields(b, func(num protowire.Number, v uint64, body []byte) error {
		switch num {
		case 1:
			r.key = body
		case 2:
			r.value = body
		case 3:
			r.lease = int64(v)
		case 4:
			r.prevKV = v != 0
		case 5:
			r.ignoreValue = v != 0
		case 6:
			r.ignoreLease = v != 0
		}
		return nil
	})
}

// fields calls each with the fields of a message: v of a varint, body of a
// length-delimited one. Others are skipped.
func fields(b []byte, each func(num protowire.Number, v uint64, body []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		var v uint64
		var body []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			body, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		if err := each(num, v, body); err != nil {
			return err
		}
	}
	return nil
}

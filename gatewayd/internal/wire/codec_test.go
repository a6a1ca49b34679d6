package wire_test

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/gatewayd/internal/wire"
)

type putRequest = wire.Request[etcdserverpb.PutRequest, *etcdserverpb.PutRequest]

func split(b []byte, at int) mem.BufferSlice {
	return mem.BufferSlice{mem.SliceBuffer(b[:at]), mem.SliceBuffer(b[at:])}
}

func TestRequestKeepsItsBytes(t *testing.T) {
	want := &etcdserverpb.PutRequest{Key: []byte("k"), Value: bytes.Repeat([]byte("v"), 100), Lease: -7, PrevKv: true}
	raw, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for at := range raw {
		var got putRequest
		buf := bytes.Clone(raw)
		if err := wire.NewCodec().Unmarshal(split(buf, at), &got); err != nil {
			t.Fatal(err)
		}
		clear(buf) // gRPC takes its buffers back
		if !bytes.Equal(got.Raw, raw) || !proto.Equal(got.Message(), want) {
			t.Fatalf("split at %d: %v, %x", at, got.Message(), got.Raw)
		}
	}
}

func TestMalformedRequestIsRefused(t *testing.T) {
	raw, _ := proto.Marshal(&etcdserverpb.PutRequest{Key: []byte("key")})
	var got putRequest
	if err := wire.NewCodec().Unmarshal(split(raw[:len(raw)-1], 1), &got); err == nil {
		t.Fatal("a truncated message was accepted")
	}
}

func TestResponseIsItsPartsInOrder(t *testing.T) {
	head, _ := proto.Marshal(&etcdserverpb.RangeResponse{Header: &etcdserverpb.ResponseHeader{Revision: 7}})
	tail, _ := proto.Marshal(&etcdserverpb.RangeResponse{Count: 9})
	long := bytes.Repeat(tail, 1000)
	for _, r := range []*wire.Response{wire.Join(bytes.Clone(head), tail), wire.Join(bytes.Clone(head), long), {Parts: [][]byte{head, nil, tail}}} {
		out, err := wire.NewCodec().Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var got etcdserverpb.RangeResponse
		if err := proto.Unmarshal(out.Materialize(), &got); err != nil {
			t.Fatal(err)
		}
		if got.Header.GetRevision() != 7 || got.Count != 9 {
			t.Fatalf("decoded %v", &got)
		}
	}
}

func TestOtherMessagesAreProtobuf(t *testing.T) {
	want := &etcdserverpb.StatusResponse{Version: "3.7.3", Leader: 5}
	out, err := wire.NewCodec().Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got etcdserverpb.StatusResponse
	if err := wire.NewCodec().Unmarshal(out, &got); err != nil || !proto.Equal(&got, want) {
		t.Fatalf("%v, %v", &got, err)
	}
}

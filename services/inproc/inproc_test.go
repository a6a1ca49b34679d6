package inproc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/inproc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers each proposal with the number of its payloads as term.
type echo struct {
	consensuspb.UnimplementedConsensusServer
	entered chan struct{}
}

func (e *echo) Propose(stream consensuspb.Consensus_ProposeServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(req.Payloads) == 0 {
			return errs.ErrNotLeader
		}
		if err := stream.Send(&consensuspb.ProposeResponse{Term: uint64(len(req.Payloads))}); err != nil {
			return err
		}
	}
}

func (e *echo) ReadIndex(ctx context.Context, _ *consensuspb.ReadIndexRequest) (*consensuspb.ReadIndexResponse, error) {
	if md, _ := metadata.FromIncomingContext(ctx); len(md.Get("term")) == 1 {
		return &consensuspb.ReadIndexResponse{Term: 7}, nil
	}
	if e.entered != nil {
		close(e.entered)
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func client(t *testing.T, f *inproc.Fabric, addr string) consensuspb.ConsensusClient {
	t.Helper()
	conn, err := f.Dial(addr, dial.Control)
	if err != nil {
		t.Fatal(err)
	}
	return consensuspb.NewConsensusClient(conn)
}

func serve(f *inproc.Fabric, addr string, e *echo) *inproc.Server {
	s := f.Server(addr)
	consensuspb.RegisterConsensusServer(s, e)
	return s
}

func TestStreamDeliversInOrderThenError(t *testing.T) {
	f := inproc.NewFabric()
	s := serve(f, "m1", &echo{})
	defer s.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stream, err := client(t, f, "m1").Propose(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const n = 10
	for i := 1; i <= n; i++ {
		if err := stream.Send(&consensuspb.ProposeRequest{Payloads: make([][]byte, i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.Send(&consensuspb.ProposeRequest{}); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= n; i++ {
		res, err := stream.Recv()
		if err != nil || res.Term != uint64(i) {
			t.Fatalf("response %d: %v, %v", i, res, err)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, errs.ErrNotLeader) {
		t.Fatalf("got %v, want ErrNotLeader", err)
	}
	if err := stream.Send(&consensuspb.ProposeRequest{}); !errors.Is(err, io.EOF) {
		t.Fatalf("send after the end: %v, want EOF", err)
	}
}

func TestHalfCloseIsSeenAfterWhatWasSent(t *testing.T) {
	f := inproc.NewFabric()
	s := serve(f, "m1", &echo{})
	defer s.Stop()
	stream, err := client(t, f, "m1").Propose(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&consensuspb.ProposeRequest{Payloads: make([][]byte, 3)}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if res, err := stream.Recv(); err != nil || res.Term != 3 {
		t.Fatalf("got %v, %v", res, err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("got %v, want EOF", err)
	}
}

func TestUnaryCarriesMetadataAndDeadline(t *testing.T) {
	f := inproc.NewFabric()
	s := serve(f, "m1", &echo{})
	defer s.Stop()
	c := client(t, f, "m1")
	res, err := c.ReadIndex(metadata.AppendToOutgoingContext(context.Background(), "term", "7"), &consensuspb.ReadIndexRequest{})
	if err != nil || res.Term != 7 {
		t.Fatalf("got %v, %v", res, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := c.ReadIndex(ctx, &consensuspb.ReadIndexRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("got %v, want DeadlineExceeded", err)
	}
	if _, err := c.GetStatus(context.Background(), &consensuspb.GetStatusRequest{}); status.Code(err) != codes.Unimplemented {
		t.Fatalf("got %v, want Unimplemented", err)
	}
}

func TestStopIsUnavailableAndAddressReturns(t *testing.T) {
	f := inproc.NewFabric()
	entered := make(chan struct{})
	s := serve(f, "m1", &echo{entered: entered})
	c := client(t, f, "m1")
	stream, err := c.Propose(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	unary := make(chan error, 1)
	go func() {
		_, err := c.ReadIndex(context.Background(), &consensuspb.ReadIndexRequest{})
		unary <- err
	}()
	<-entered
	s.Stop()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("stream: %v, want Unavailable", err)
	}
	if err := <-unary; status.Code(err) != codes.Unavailable {
		t.Fatalf("unary: %v, want Unavailable", err)
	}
	if _, err := c.Propose(context.Background()); status.Code(err) != codes.Unavailable {
		t.Fatalf("call to a stopped server: %v", err)
	}
	s = serve(f, "m1", &echo{})
	defer s.Stop()
	if _, err := c.ReadIndex(metadata.AppendToOutgoingContext(context.Background(), "term", "7"), &consensuspb.ReadIndexRequest{}); err != nil {
		t.Fatalf("the address does not answer again: %v", err)
	}
}

func TestUnknownAddressIsSaid(t *testing.T) {
	if _, err := inproc.NewFabric().Dial("nowhere", dial.Control); !errors.Is(err, dial.ErrUnknownAddress) {
		t.Fatalf("got %v", err)
	}
}

func BenchmarkStreamRoundTrip(b *testing.B) {
	f := inproc.NewFabric()
	s := serve(f, "m1", &echo{})
	defer s.Stop()
	conn, _ := f.Dial("m1", dial.Control)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := consensuspb.NewConsensusClient(conn).Propose(ctx)
	if err != nil {
		b.Fatal(err)
	}
	req := &consensuspb.ProposeRequest{Payloads: [][]byte{fmt.Append(nil, "payload")}}
	b.ReportAllocs()
	for b.Loop() {
		if err := stream.Send(req); err != nil {
			b.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			b.Fatal(err)
		}
	}
}

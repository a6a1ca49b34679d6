package transport

import (
	"context"
	"errors"
	"io"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/peerpb"
	"github.com/quartet-kv/quartet/services/dial"
)

// Pauses between tries to open a stream. The connection beneath has a backoff
// of its own.
const (
	reopenMin = 10 * time.Millisecond
	reopenMax = 250 * time.Millisecond
)

// sender owns one stream to one peer.
type sender struct {
	transport *Transport
	peer      *peer
	box       *outbox
	class     dial.Class
	name      string
}

// run opens the stream again and again until ctx ends.
func (s *sender) run(ctx context.Context) {
	log := s.transport.log.With("peer", s.peer.describe(), "class", s.name)
	pause, down := reopenMin, false
	for ctx.Err() == nil {
		greeted, err := s.stream(ctx)
		if ctx.Err() != nil {
			return
		}
		if greeted {
			pause, down = reopenMin, false
		}
		if !down {
			log.Info("peer stream lost", "addr", s.peer.address, "err", err)
			down = true
		}
		s.transport.receiver.Unreachable(s.peer.id)
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, reopenMax)
	}
}

// stream sends until the stream breaks; greeted tells whether the greeting
// went out.
func (s *sender) stream(ctx context.Context) (greeted bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := s.transport.dialer.Dial(s.peer.address, s.class)
	if err != nil {
		return false, err
	}
	stream, err := peerpb.NewPeerClient(conn).Send(ctx, grpc.WaitForReady(true))
	if err != nil {
		return false, err
	}
	if err := stream.Send(s.message(nil, s.transport.report.Load())); err != nil {
		return false, ended(stream, err)
	}
	s.box.setOpen(true)
	defer s.box.setOpen(false)
	var buf []*raftpb.Message
	for {
		buf, err = s.box.take(ctx, buf[:0])
		if err != nil {
			return true, err
		}
		if err := s.send(stream, buf); err != nil {
			return true, ended(stream, err)
		}
		clear(buf)
	}
}

func (s *sender) send(stream peerpb.Peer_SendClient, batch []*raftpb.Message) error {
	var report *peerpb.Report
	encoded, size := make([][]byte, len(batch)), 0
	for i, m := range batch {
		if t := m.GetType(); t == raftpb.MsgHeartbeat || t == raftpb.MsgHeartbeatResp {
			report = s.transport.report.Load()
		}
		b, err := proto.Marshal(m)
		if err != nil {
			return err
		}
		encoded[i] = b
		size += len(b)
	}
	s.transport.metrics.Sent.WithLabelValues(s.name).Add(float64(len(batch)))
	s.transport.metrics.SentBytes.WithLabelValues(s.name).Add(float64(size))
	return stream.Send(s.message(encoded, report))
}

func (s *sender) message(encoded [][]byte, report *peerpb.Report) *peerpb.Messages {
	return &peerpb.Messages{
		ClusterId: s.transport.id.Cluster, From: s.transport.id.Member, To: s.peer.id,
		Messages: encoded, Report: report,
	}
}

// ended is why a stream ended: io.EOF from Send means that the answer knows.
func ended(stream peerpb.Peer_SendClient, err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	if _, answer := stream.CloseAndRecv(); answer != nil {
		return answer
	}
	return err
}

// sleep waits, or tells that ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

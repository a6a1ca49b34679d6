package storetest

import (
	"context"
	"testing"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
)

// Session proposes commands straight into a Log and reads their outcomes from a
// store.
type Session struct {
	t      testing.TB
	log    *Log
	client storepb.StoreClient
	stream storepb.Store_OutcomesClient
	queue  []*storepb.Outcome

	ID    uint64
	Next  uint64
	Acked uint64
}

// OpenSession opens a session and attaches to its outcomes.
func OpenSession(t testing.TB, ctx context.Context, log *Log, client storepb.StoreClient, open *logpb.SessionOpen) *Session {
	t.Helper()
	log.AppendBatch(&logpb.Batch{Commands: []*logpb.Command{command(logpb.Command_SESSION_OPEN, open)}})
	s := &Session{t: t, log: log, client: client, Next: 1}
	stream, err := client.Outcomes(ctx, &storepb.OutcomesRequest{Nonce: open.Nonce})
	if err != nil {
		t.Fatalf("outcomes: %v", err)
	}
	first, err := stream.Recv()
	if err != nil {
		t.Fatalf("first outcomes: %v", err)
	}
	s.stream, s.ID, s.queue = stream, first.Session, first.Outcomes
	return s
}

// Propose appends commands as one entry and returns its index.
func (s *Session) Propose(commands ...*logpb.Command) uint64 {
	first := s.Next
	s.Next += uint64(len(commands))
	return s.log.AppendBatch(&logpb.Batch{Session: s.ID, FirstSeq: first, Acked: s.Acked, Commands: commands})
}

// Outcome is the next one of the stream.
func (s *Session) Outcome() *storepb.Outcome {
	s.t.Helper()
	for len(s.queue) == 0 {
		b, err := s.stream.Recv()
		if err != nil {
			s.t.Fatalf("outcomes of session %d: %v", s.ID, err)
		}
		s.queue = b.Outcomes
	}
	o := s.queue[0]
	s.queue = s.queue[1:]
	return o
}

// Do applies one command and returns its outcome.
func (s *Session) Do(c *logpb.Command) *storepb.Outcome {
	s.t.Helper()
	s.Propose(c)
	return s.Outcome()
}

// Put is Do for a put that must succeed; it returns the revision.
func (s *Session) Put(key, value string) int64 {
	s.t.Helper()
	o := s.Do(Put(key, value))
	if o.Error != "" {
		s.t.Fatalf("put %q: %s", key, o.Error)
	}
	return o.Revision
}

// Put is the command.
func Put(key, value string) *logpb.Command {
	return command(logpb.Command_PUT, &etcdserverpb.PutRequest{Key: []byte(key), Value: []byte(value)})
}

// Delete is the command that deletes [key, end), or key if end is empty.
func Delete(key, end string) *logpb.Command {
	return command(logpb.Command_DELETE_RANGE, &etcdserverpb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)})
}

// Command is any command.
func Command(kind logpb.Command_Kind, body proto.Message) *logpb.Command { return command(kind, body) }

func command(kind logpb.Command_Kind, body proto.Message) *logpb.Command {
	b, err := proto.Marshal(body)
	if err != nil {
		panic(err) // the message is the test's own
	}
	return &logpb.Command{Kind: kind, Body: b}
}

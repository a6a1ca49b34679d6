package read

import (
	"context"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/keyspace"
	"github.com/quartet-kv/quartet/services/logid"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
)

// Scan serves one large range.
func (s *Server) Scan(req *storepb.ScanRequest, g grpc.ServerStreamingServer[storepb.ScanChunk]) error {
	ctx := g.Context()
	s.metrics.Scans.Inc()
	var r etcdserverpb.RangeRequest
	if err := proto.Unmarshal(req.Range, &r); err != nil {
		return errMalformed
	}
	view, err := s.state.Wait(ctx, logid.Epoch(req.Epoch), logid.Index(req.MinIndex), req.MinRevision)
	if err != nil {
		return err
	}
	if err := mvcc.CheckRange(&r); err != nil {
		return err
	}
	if err := view.CheckRevision(r.Revision); err != nil {
		return err
	}
	c := &chunker{server: s, ctx: ctx, stream: g, request: req, revision: view.Revision}
	if err := s.admit(ctx); err != nil {
		return err
	}
	defer s.leave()
	return s.asStatus(c.run(&r))
}

// admit waits for a turn to scan.
func (s *Server) admit(ctx context.Context) error {
	select {
	case s.scans <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) leave() { <-s.scans }

// chunker sends a range chunk by chunk.
type chunker struct {
	server   *Server
	ctx      context.Context
	stream   grpc.ServerStreamingServer[storepb.ScanChunk]
	request  *storepb.ScanRequest
	src      *mvcc.Snapshot
	revision int64 // the store's when the scan began

	shape mvcc.Ranged // how an item is shown
	chunk []byte
	keys  uint32
	sent  int64 // keys of earlier chunks
	any   bool
}

func (c *chunker) run(r *etcdserverpb.RangeRequest) error {
	c.src = c.server.state.At(c.ctx, max(0, r.Revision))
	if r.Revision <= 0 {
		c.revision = c.src.Revision()
	}
	lo, hi, single := mvcc.Bounds(r.Key, r.RangeEnd)
	if single || r.CountOnly || !mvcc.InKeyOrder(r) {
		return c.gathered(r)
	}
	c.shape = mvcc.Ranged{KeysOnly: r.KeysOnly, NoLease: true}
	return c.streamed(lo, hi, r.Limit)
}

// gathered sends an answer that had to be put together first.
func (c *chunker) gathered(r *etcdserverpb.RangeRequest) error {
	answer, err := mvcc.Range(c.src, r, 0)
	if err != nil {
		return err
	}
	c.shape = *answer
	for i := range answer.Items {
		if err := c.add(&answer.Items[i]); err != nil {
			return err
		}
	}
	return c.send(&storepb.ScanChunk{Last: true, More: answer.More, Count: answer.Count})
}

// streamed sends the range as it is walked.
func (c *chunker) streamed(lo, hi []byte, limit int64) error {
	last := &storepb.ScanChunk{Last: true}
	var failed error
	want := 0
	if limit > 0 {
		want = int(min(limit+1, int64(keyspace.ChunkMax)))
	}
	err := c.src.Ascend(lo, hi, want, func(it *keyspace.Item) bool {
		if limit > 0 && c.sent+int64(c.keys) == limit {
			last.More = true
			return false
		}
		failed = c.add(it)
		return failed == nil
	})
	if err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	last.Count = c.sent + int64(c.keys)
	if last.More {
		if last.Count, err = c.src.Count(lo, hi); err != nil {
			return err
		}
	}
	return c.send(last)
}

// add puts an item into the open chunk, and sends that when it is full.
func (c *chunker) add(it *keyspace.Item) error {
	limit := int(c.request.ChunkBytes)
	if limit <= 0 {
		limit = ChunkBytesDefault
	}
	limit = min(limit, chunkBytesMax)
	if c.chunk == nil {
		c.chunk = make([]byte, 0, min(limit, 64<<10))
	}
	c.chunk = c.shape.AppendItem(c.chunk, it)
	c.keys++
	firstFull := !c.any && c.request.FirstKeys > 0 && c.keys >= c.request.FirstKeys
	if len(c.chunk) < limit && !firstFull {
		return nil
	}
	return c.send(&storepb.ScanChunk{})
}

// send sends what is open. Others may scan while it waits for the receiver.
func (c *chunker) send(chunk *storepb.ScanChunk) error {
	if err := c.server.state.Intact(c.src.Revision()); err != nil {
		return err
	}
	chunk.Kvs, chunk.Keys, chunk.Revision = c.chunk, c.keys, c.revision
	chunk.RaftTerm = uint64(c.server.state.View().Term)
	c.sent += int64(c.keys)
	c.chunk, c.keys, c.any = nil, 0, true
	c.server.leave()
	err := c.stream.Send(chunk)
	// The turn is taken again even after an error: Scan gives it back.
	c.server.scans <- struct{}{}
	return err
}

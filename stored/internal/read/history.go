package read

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/kv"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
	"github.com/quartet-kv/quartet/stored/internal/row"
)

// Limits of a chunk of history, beside its bytes.
const (
	historyRevisionsMax = 1000
	// historyScanMax is how many revisions are looked at before the reader is
	// told how far it is.
	historyScanMax = 20000
)

// History serves one History call.
func (s *Server) History(req *storepb.HistoryRequest, g grpc.ServerStreamingServer[storepb.HistoryChunk]) error {
	ctx := g.Context()
	s.metrics.Histories.Inc()
	view, err := s.state.Wait(ctx, 0, 0, req.MinRevision)
	if err != nil {
		return err
	}
	to := req.To
	if to <= 0 {
		to = view.Revision
	}
	from := max(req.From, 1)
	if from < view.Compact {
		return rpctypes.ErrGRPCCompacted
	}
	if view, err = s.state.Wait(ctx, 0, 0, to); err != nil {
		return err
	}
	if err := s.state.WaitRevision(ctx, to); err != nil {
		return err
	}
	h := &historian{server: s, ctx: ctx, request: req, compact: view.Compact}
	for from <= to {
		chunk, err := h.chunk(from, to)
		if err == nil {
			err = s.state.Intact(from)
		}
		if err != nil {
			return s.asStatus(err)
		}
		if err := g.Send(chunk); err != nil {
			return err
		}
		from = chunk.Through + 1
	}
	return nil
}

// historian reads the events of one key range.
type historian struct {
	server  *Server
	ctx     context.Context
	request *storepb.HistoryRequest
	compact int64
}

// chunk reads from a revision up to another or until the chunk is full.
func (h *historian) chunk(from, to int64) (*storepb.HistoryChunk, error) {
	s := h.server
	if err := s.admit(h.ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	view := s.state.View()
	c := &storepb.HistoryChunk{Through: to, CompactRevision: view.Compact, Revision: view.Revision}
	it := s.state.Engine.Iterate(engine.IterOptions{Lower: row.HistoryKey(from), Upper: row.HistoryKey(to + 1), At: s.state.Committed().Stamp})
	defer it.Close()
	bytes := 0
	for scanned := 0; it.Next(); scanned++ {
		r := it.Row()
		revision := int64(row.Number(r.Key))
		full := bytes >= ChunkBytesDefault || len(c.Revisions) >= historyRevisionsMax || scanned >= historyScanMax
		if full && !row.IsHistoryPart(r.Key) {
			c.Through = revision - 1
			return c, nil
		}
		record, err := row.DecodeHistory(r.Value)
		if err != nil {
			return nil, err
		}
		events, size, err := h.events(revision, &record)
		if err != nil {
			return nil, err
		}
		bytes += size
		if n := len(c.Revisions); n > 0 && c.Revisions[n-1].Revision == revision {
			c.Revisions[n-1].Events = append(c.Revisions[n-1].Events, events...)
		} else if len(events) > 0 {
			c.Revisions = append(c.Revisions, &buspb.Revision{Revision: revision, Events: events})
		}
	}
	return c, it.Err()
}

// events are a revision's changes within the range.
func (h *historian) events(revision int64, record *row.History) (events []*buspb.Event, size int, err error) {
	lo, hi, single := mvcc.Bounds(h.request.Key, h.request.RangeEnd)
	e := h.server.state.Engine
	for _, c := range record.Changes {
		if single && string(c.Key) != string(lo) || !single && !mvcc.Within(c.Key, lo, hi) {
			continue
		}
		event := &buspb.Event{Key: c.Key, Delete: c.Delete}
		if c.Delete {
			event.Kv = kv.EncodeDelete(c.Key, revision)
		} else if event.Kv, err = h.row(c.Key, engine.Stamp(record.Stamp)); err != nil {
			return nil, 0, err
		}
		// What a compacted revision held is not told, even where it is still
		// there: stores purge at their own pace.
		if h.request.PrevKv && revision-1 >= h.compact {
			event.PrevKv, _, err = e.Get(row.Key(c.Key), engine.Stamp(record.Stamp)-1)
			if err != nil && !errors.Is(err, engine.ErrNotFound) {
				return nil, 0, err
			}
			err = nil
		}
		size += len(event.Key) + len(event.Kv) + len(event.PrevKv)
		events = append(events, event)
	}
	return events, size, nil
}

// row returns a key's row at exactly a stamp. It may have been purged, if the
// revision was compacted meanwhile; then Intact says so.
func (h *historian) row(key []byte, at engine.Stamp) ([]byte, error) {
	value, _, err := h.server.state.Engine.Get(row.Key(key), at)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, rpctypes.ErrGRPCCompacted
	}
	return value, err
}

// Hash hashes the keys as the engine holds them at a revision, with the chained
// hash of the revision. It is the same on every store and engine at the same
// revision and compact revision.
func (s *Server) Hash(ctx context.Context, req *storepb.HashRequest) (*storepb.HashResponse, error) {
	view := s.state.View()
	if err := view.CheckRevision(req.Revision); err != nil {
		return nil, err
	}
	revision := req.Revision
	if revision <= 0 {
		revision = view.Revision
	}
	stamp, err := s.state.StampOf(ctx, revision)
	if err != nil {
		return nil, s.asStatus(err)
	}
	if err := s.admit(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	sum, err := s.hash(ctx, revision, view.Compact, stamp)
	if err == nil {
		err = s.state.Intact(revision)
	}
	if err != nil {
		return nil, s.asStatus(err)
	}
	return &storepb.HashResponse{Hash: sum, HashRevision: revision, CompactRevision: view.Compact, Revision: view.Revision}, nil
}

func (s *Server) hash(ctx context.Context, revision, compact int64, stamp engine.Stamp) (uint32, error) {
	hash := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	var head [24]byte
	binary.LittleEndian.PutUint64(head[:], uint64(revision))
	binary.LittleEndian.PutUint64(head[8:], uint64(compact))
	if revision > mvcc.FirstRevision {
		record, err := s.state.History(revision)
		if err != nil {
			return 0, err
		}
		binary.LittleEndian.PutUint64(head[16:], record.Hash)
	}
	hash.Write(head[:])
	it := s.state.Engine.Iterate(engine.IterOptions{Lower: []byte{row.PrefixKey}, Upper: []byte{row.PrefixKey + 1}, At: stamp})
	defer it.Close()
	for it.Next() && ctx.Err() == nil {
		r := it.Row()
		if len(r.Value) == 0 {
			continue // whether a tombstone is still there depends on purging
		}
		hash.Write(r.Key)
		hash.Write(r.Value)
	}
	if err := errors.Join(it.Err(), ctx.Err()); err != nil {
		return 0, err
	}
	return hash.Sum32(), nil
}

package read

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
)

// Limits of reading.
const (
	// SmallBytesMax bounds the answer to one small read.
	SmallBytesMax = 256 << 10
	// resultsBytesMax bounds one message of answers; one answer may exceed it.
	resultsBytesMax = 1 << 20
	// waitingMax bounds the batches of one stream that wait for a position.
	waitingMax = 128
	// ChunkBytesDefault is a chunk of Scan and History, if the caller does not
	// say; chunkBytesMax is the most that is taken from a caller.
	ChunkBytesDefault = 512 << 10
	chunkBytesMax     = 8 << 20
)

// Metrics of a Server.
type Metrics struct {
	Reads, Scans, Histories prometheus.Counter
	Waiting                 prometheus.Gauge
}

// Server answers reads from a State.
type Server struct {
	state   *mvcc.State
	log     *slog.Logger
	metrics Metrics
	// scans admits scanning to half of the cores.
	scans chan struct{}
}

// NewServer returns a Server.
func NewServer(state *mvcc.State, log *slog.Logger, m Metrics) *Server {
	return &Server{state: state, log: log, metrics: m, scans: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

// Read serves one Read stream.
func (s *Server) Read(g grpc.BidiStreamingServer[storepb.ReadBatch, storepb.ReadResults]) error {
	ctx, cancel := context.WithCancel(g.Context())
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	a := answerer{server: s, ctx: ctx, stream: g}
	slots := make(chan struct{}, waitingMax)
	for {
		batch, err := g.Recv()
		if errors.Is(err, io.EOF) {
			waiting.Wait()
			return nil
		}
		if err != nil {
			return err
		}
		if s.state.Reached(logid.Epoch(batch.Epoch), logid.Index(batch.MinIndex), batch.MinRevision) {
			if err := a.answer(batch); err != nil {
				return err
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		waiting.Go(func() {
			defer func() { <-slots }()
			if a.waitAndAnswer(batch) != nil {
				cancel()
			}
		})
	}
}

// answerer answers batches of one stream.
type answerer struct {
	server *Server
	ctx    context.Context
	stream grpc.BidiStreamingServer[storepb.ReadBatch, storepb.ReadResults]
	mu     sync.Mutex // one sender at a time
}

func (a *answerer) waitAndAnswer(batch *storepb.ReadBatch) error {
	s := a.server
	s.metrics.Waiting.Inc()
	defer s.metrics.Waiting.Dec()
	_, err := s.state.Wait(a.ctx, logid.Epoch(batch.Epoch), logid.Index(batch.MinIndex), batch.MinRevision)
	if err != nil && a.ctx.Err() == nil {
		return a.refuse(batch, err)
	}
	if err != nil {
		return err
	}
	return a.answer(batch)
}

// answer evaluates each read of a batch.
func (a *answerer) answer(batch *storepb.ReadBatch) error {
	s := a.server
	s.metrics.Reads.Add(float64(len(batch.Reads)))
	rows := make([]storepb.ReadResult, len(batch.Reads))
	results := make([]*storepb.ReadResult, 0, len(batch.Reads))
	size := 0
	for i, r := range batch.Reads {
		result := &rows[i]
		result.Id = r.Id
		s.evaluate(a.ctx, r, result)
		results = append(results, result)
		if size += len(result.Body); size > resultsBytesMax {
			if err := a.send(results); err != nil {
				return err
			}
			results, size = nil, 0
		}
	}
	return a.send(results)
}

func (a *answerer) refuse(batch *storepb.ReadBatch, err error) error {
	results := make([]*storepb.ReadResult, len(batch.Reads))
	for i, r := range batch.Reads {
		results[i] = &storepb.ReadResult{Id: r.Id, Error: errs.Text(err)}
	}
	return a.send(results)
}

func (a *answerer) send(results []*storepb.ReadResult) error {
	if len(results) == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stream.Send(&storepb.ReadResults{Results: results, RaftTerm: uint64(a.server.state.View().Term)})
}

// asStatus makes a status of an engine's error; others are one already.
func (s *Server) asStatus(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, engine.ErrClosed) {
		return errs.ErrStopped
	}
	if _, ok := status.FromError(err); ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	s.log.Error("read the engine", "err", err)
	return status.Errorf(codes.Internal, "stored: %v", err)
}

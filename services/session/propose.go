package session

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/errs"
)

// proposeLoop keeps one Propose stream to the leader, for as long as there is
// one.
func (s *Session) proposeLoop(ctx context.Context) {
	pause := s.config.RetryMin
	for ctx.Err() == nil {
		changed := s.directory.Changed()
		view := s.directory.View()
		if !view.Led() {
			wait(ctx, changed, 0)
			continue
		}
		began := time.Now()
		err := s.proposeTo(ctx, view)
		if err == nil { // it was left, not refused
			continue
		}
		if errors.Is(err, errs.ErrPayloadTooLarge) {
			s.log.Error("consensusd refuses what this session is allowed to send: raise its payload limit above the command limit",
				"payload-bytes-max", s.config.CommandBytesMax, "err", err)
		}
		s.log.Debug("propose stream ended", "member", view.Leader, "term", uint64(view.Term), "err", err)
		if time.Since(began) > 2*s.config.RetryMax {
			pause = s.config.RetryMin
		}
		wait(ctx, changed, pause)
		pause = min(2*pause, s.config.RetryMax)
	}
}

// wait returns after the pause (0 is for ever), or when woken.
func wait(ctx context.Context, woken <-chan struct{}, pause time.Duration) {
	var after <-chan time.Time
	if pause > 0 {
		t := time.NewTimer(pause)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-after:
	case <-woken:
	case <-ctx.Done():
	}
}

// proposeTo proposes to the leader of view until another one leads, a renewal is
// asked for or ctx ends (nil), or the stream breaks or is refused (its error).
func (s *Session) proposeTo(ctx context.Context, view cluster.View) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	client, err := s.directory.Consensus(view.Leader)
	if err != nil {
		return err
	}
	stream, err := client.Propose(ctx)
	if err != nil {
		return err
	}
	s.metrics.streams.Inc()
	var term atomic.Uint64
	term.Store(uint64(view.Term))
	ended := make(chan error, 1)
	wg.Go(func() { ended <- receiveTerm(stream, &term) })
	number := s.window.begin()
	wg.Go(func() { s.send(ctx, stream, number) })

	for {
		changed := s.directory.Changed()
		if v := s.directory.View(); v.Leader != view.Leader || uint64(v.Term) > term.Load() {
			return nil
		}
		select {
		case err := <-ended:
			return err
		case <-changed:
		case <-s.again:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// receiveTerm reads the term that the stream is bound to, then its end.
func receiveTerm(stream consensuspb.Consensus_ProposeClient, term *atomic.Uint64) error {
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		term.Store(max(term.Load(), res.Term))
	}
}

// send sends what gathers, one payload at a time, until the stream ends.
func (s *Session) send(ctx context.Context, stream consensuspb.Consensus_ProposeClient, number uint64) {
	var scratch logpb.Batch
	for ctx.Err() == nil {
		// Let those who are about to propose do it now: under load this makes
		// batches, and without load it returns at once.
		runtime.Gosched()
		payload, current := s.window.gather(number, &scratch)
		if !current {
			return
		}
		if payload != nil {
			if stream.Send(&consensuspb.ProposeRequest{Payloads: [][]byte{payload}}) != nil {
				return // the receiver knows why
			}
			continue
		}
		select {
		case <-s.window.wake:
		case <-ctx.Done():
		}
	}
}

package session

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/errs"
)

// Session proposes commands exactly once. Its methods are safe for concurrent
// use.
type Session struct {
	config    Config
	directory *cluster.Directory
	log       *slog.Logger
	metrics   *metrics
	window    *window
	attached  atomic.Uint64
	// again asks the propose loop for a new stream.
	again chan struct{}
}

// New returns a Session that is opened by Run. A nil log discards; a nil
// registerer keeps the metrics to itself.
func New(c Config, d *cluster.Directory, log *slog.Logger, registerer prometheus.Registerer) *Session {
	c.setDefaults()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m := newMetrics(registerer)
	return &Session{
		config:    c,
		directory: d,
		log:       log.With("owner", c.Owner),
		metrics:   m,
		window:    newWindow(c, m),
		again:     make(chan struct{}, 1),
	}
}

// Run opens the session and carries proposals until ctx ends; then it waits at
// most CloseTimeout for the outcomes that are under way, closes the session and
// returns ctx's error. It is called once.
func (s *Session) Run(ctx context.Context) error {
	loops, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { s.proposeLoop(loops) })
	wg.Go(func() { s.outcomeLoop(loops) })

	<-ctx.Done()
	closing, cancel := context.WithTimeout(loops, s.config.CloseTimeout)
	defer cancel()
	if err := s.close(closing); err != nil {
		s.log.Info("session left open", "session", s.ID(), "err", err)
	}
	stop()
	wg.Wait()
	s.window.fail()
	return ctx.Err()
}

// Propose hands a command to the log and waits for its outcome. It may be
// called before Run. It neither loses a command nor applies it twice; it waits
// through leader changes and dead stores for as long as ctx lasts. It keeps body
// until the command is answered, even beyond its own return: the caller must
// not change it.
//
// Outcomes:
//
//   - outcome and nil: the command was applied.
//   - outcome and an error: it was decided and refused; the error is the status
//     that etcd answers with (errs.FromText of Outcome.Error), and the
//     Outcome's revision and index hold.
//   - nil and ctx's error: nobody knows. A command that was not sent yet is
//     withdrawn; one that was may still be applied, once.
//   - nil and etcd's "request timed out": nobody knows, and nobody will: it
//     was sent, and the outcome is lost (every store that had it restarted, the
//     session was evicted, or this process stops).
//   - nil and errs.ErrPayloadTooLarge, errs.ErrTooManyRequests (a queue limit)
//     or errs.ErrStopped: it was not sent and never will be.
func (s *Session) Propose(ctx context.Context, kind logpb.Command_Kind, body []byte) (*storepb.Outcome, error) {
	if len(body) > s.config.CommandBytesMax {
		return nil, errs.ErrPayloadTooLarge
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := s.window.enqueue(kind, body)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.answered:
	case <-ctx.Done():
		if !s.window.abandon(c) {
			return nil, ctx.Err()
		}
		<-c.answered // it was answered before it could be abandoned
	}
	outcome, err := c.outcome, c.err
	s.window.recycle(c)
	if outcome != nil {
		return outcome, errs.FromText(outcome.Error)
	}
	return nil, err
}

// Attached is the member whose store the outcomes are read from, 0 while there
// is none.
func (s *Session) Attached() uint64 { return s.attached.Load() }

// ID is the id of the session in the log, 0 before it is open. It changes when
// the session was evicted and a new one opened.
func (s *Session) ID() uint64 { return s.window.identity().id }

// close lets what is under way end and closes the session in the log, so that
// stores forget it at once instead of by eviction.
func (s *Session) close(ctx context.Context) error {
	s.window.stop()
	if err := s.window.waitEmpty(ctx); err != nil {
		return err
	}
	if s.ID() == 0 {
		return nil
	}
	c := s.window.enqueueClose()
	select {
	case <-c.answered:
		return c.err
	case <-ctx.Done():
		s.window.abandon(c)
		return errors.New("its end was not confirmed in time")
	}
}

// renew asks for a new Propose stream, which begins with the first command in
// flight. A repeated wish is one wish.
func (s *Session) renew() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

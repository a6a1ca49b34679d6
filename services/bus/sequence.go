package bus

import (
	"context"
	"sync"
	"time"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/services/invariant"
	"github.com/quartet-kv/quartet/services/logid"
)

// sequence is the state of a Reader's Run, owned by one goroutine.
type sequence struct {
	reader *Reader
	config *ReaderConfig
	sink   Sink
	wg     *sync.WaitGroup

	cluster  uint64
	known    bool // position is the Sink's
	position Position

	// ahead are batches of the bus from beyond a gap, in the order they came.
	ahead      []*buspb.Batch
	aheadBytes int

	// pull is the feed of a store while the bus alone is not enough; rebase
	// says that its first batch is the position to reset to.
	pull     chan news
	stopPull context.CancelFunc
	rebase   bool
	// contradicted: a store's history differs from the Sink's at its position.
	contradicted bool
	retry        time.Duration
	retryAt      <-chan time.Time
	quiet        *time.Timer // fires when the feed says nothing
	silence      *time.Timer // fires when the bus says nothing
}

// source is who brought a batch.
type source int

const (
	fromBus source = iota
	fromStore
)

func (s *sequence) run(ctx context.Context, heard <-chan news) error {
	s.silence = time.NewTimer(s.config.SilenceMax)
	defer s.silence.Stop()
	s.quiet = time.NewTimer(s.config.SilenceMax)
	defer s.quiet.Stop()
	defer s.endPull()
	var wantBy <-chan time.Time
	if !s.known {
		s.startPull(ctx)
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case n := <-heard:
			s.silence.Reset(s.config.SilenceMax)
			err = s.onBus(ctx, n)
		case n := <-s.pull:
			s.quiet.Reset(pullQuietTimes * s.config.SilenceMax)
			err = s.onStore(ctx, n)
		case <-s.silence.C:
			s.startPull(ctx)
		case <-s.quiet.C:
			s.restartPull(ctx)
		case <-s.retryAt:
			s.retryAt = nil
			s.startPull(ctx)
		case <-s.reader.wanted:
			if wantBy == nil {
				wantBy = time.After(s.config.WantWait)
			}
		case <-wantBy:
			wantBy = nil
			if s.known && s.reader.want.Load() > uint64(s.position.At.Index) {
				s.startPull(ctx)
			}
		}
		if err != nil {
			return err
		}
	}
}

// pullQuietTimes is how many times SilenceMax a followed store may say nothing
// before another one is asked.
const pullQuietTimes = 4

// onBus judges what the bus says.
func (s *sequence) onBus(ctx context.Context, n news) error {
	if n.err != nil { // a lapse
		s.startPull(ctx)
		return nil
	}
	joined, err := s.consider(ctx, n.batch, fromBus)
	if joined && len(s.ahead) == 0 {
		s.endPull()
	}
	return err
}

// onStore judges what a followed store says.
func (s *sequence) onStore(ctx context.Context, n news) error {
	if n.err != nil {
		s.onPullEnd(ctx, n.err)
		return nil
	}
	if s.rebase {
		return s.onBase(ctx, n.batch)
	}
	if _, err := s.consider(ctx, n.batch, fromStore); err != nil {
		return err
	}
	return s.drain(ctx)
}

func (s *sequence) onPullEnd(ctx context.Context, err error) {
	s.endPull()
	if behind(err) {
		s.reader.log.Info("stores no longer hold the position", "index", uint64(s.position.At.Index), "revision", s.position.Revision)
		s.rebase = true
	} else {
		s.reader.log.Debug("pull ended", "err", err)
	}
	s.retryAt = time.After(s.retry)
	s.retry = min(2*s.retry, s.config.RetryMax)
}

// onBase takes a store's current position as the new one, unless that store is
// itself behind the Sink.
func (s *sequence) onBase(ctx context.Context, b *buspb.Batch) error {
	if !s.ours(b) {
		return nil
	}
	p := positionAfter(b)
	if s.known && !s.contradicted && (p.At.Epoch < s.position.At.Epoch || p.At.Epoch == s.position.At.Epoch && p.At.Index <= s.position.At.Index) {
		s.rebase = false
		_, err := s.consider(ctx, b, fromStore) // it may catch up, and has told our term at least
		return err
	}
	return s.reset(ctx, p)
}

func (s *sequence) reset(ctx context.Context, p Position) error {
	s.reader.log.Info("reset", "from", s.position.At.String(), "to", p.At.String(), "revision", p.Revision)
	if err := s.sink.Reset(ctx, p); err != nil {
		return err
	}
	s.known, s.position = true, p
	s.rebase, s.contradicted = false, false
	return s.drain(ctx)
}

// ours refuses batches of another cluster.
func (s *sequence) ours(b *buspb.Batch) bool {
	if s.cluster == 0 {
		s.cluster = b.ClusterId
	}
	return b.ClusterId == s.cluster && b.At != nil
}

// consider takes a batch if it is the next one, and sees to it that what is
// missing comes otherwise. It tells whether the batch met the position, so that
// its source alone is enough from here on.
func (s *sequence) consider(ctx context.Context, b *buspb.Batch, by source) (met bool, err error) {
	if !s.ours(b) || !s.known {
		return false, nil // the position comes from a store
	}
	at := logid.FromProto(b.At)
	switch {
	case at.Epoch < s.position.At.Epoch:
		return false, nil
	case at.Epoch > s.position.At.Epoch:
		return true, s.reset(ctx, positionAfter(b))
	case at.Index < s.position.At.Index:
		return false, nil
	case at.Index == s.position.At.Index:
		return s.onSamePlace(ctx, b, at)
	case b.PrevIndex > uint64(s.position.At.Index):
		if by == fromBus {
			s.keep(b)
		}
		s.startPull(ctx)
		return false, nil
	case b.Pull:
		s.startPull(ctx)
		return false, nil
	}
	if err := s.accept(ctx, b); err != nil {
		return false, err
	}
	return true, s.drain(ctx)
}

// onSamePlace judges a heartbeat or a repetition.
func (s *sequence) onSamePlace(ctx context.Context, b *buspb.Batch, at logid.ID) (met bool, err error) {
	if at.Term != s.position.At.Term {
		if s.contradicted {
			return false, nil // a store is being asked where to go on
		}
		s.reader.log.Error("history differs", "mine", s.position.At.String(), "theirs", at.String())
		s.contradicted, s.rebase = true, true
		s.restartPull(ctx)
		return false, nil
	}
	if term := logid.Term(b.RaftTerm); term > s.position.Term {
		c := from(s.position, withoutRevisions(b))
		c.Pull = false
		if err := s.sink.Accept(ctx, c); err != nil {
			return false, err
		}
		s.position.Term = term
	}
	return true, nil
}

func (s *sequence) accept(ctx context.Context, b *buspb.Batch) error {
	b = from(s.position, b)
	if invariant.On {
		last := s.position.Revision
		for _, r := range b.Revisions {
			invariant.Check(r.Revision > last && r.Revision <= b.Revision, "revision %d after %d in a batch up to %d", r.Revision, last, b.Revision)
			last = r.Revision
		}
	}
	if err := s.sink.Accept(ctx, b); err != nil {
		return err
	}
	term := max(s.position.Term, logid.Term(b.RaftTerm))
	s.position = positionAfter(b)
	s.position.Term = term
	s.retry = s.config.RetryMin
	return nil
}

// keep holds a batch from beyond a gap. When it holds too much it begins anew
// with the latest, which the pulled ones will meet last.
func (s *sequence) keep(b *buspb.Batch) {
	size := SizeOf(b)
	if len(s.ahead) >= s.config.AheadBatchesMax || s.aheadBytes+size > s.config.AheadBytesMax {
		s.dropAhead()
	}
	s.ahead = append(s.ahead, b)
	s.aheadBytes += size
}

func (s *sequence) dropAhead() {
	clear(s.ahead)
	s.ahead, s.aheadBytes = s.ahead[:0], 0
}

// drain takes the kept batches that are next by now. If one of them was, the bus
// is met, and the store need not be followed any more.
func (s *sequence) drain(ctx context.Context) error {
	met := false
	for again := true; again; {
		again = false
		kept := s.ahead[:0]
		for _, b := range s.ahead {
			at := logid.FromProto(b.At)
			switch {
			case at.Epoch != s.position.At.Epoch || at.Index <= s.position.At.Index:
				s.aheadBytes -= SizeOf(b)
			case b.PrevIndex <= uint64(s.position.At.Index) && !b.Pull:
				if err := s.accept(ctx, b); err != nil {
					return err
				}
				s.aheadBytes -= SizeOf(b)
				met, again = true, true
			default:
				kept = append(kept, b)
			}
		}
		clear(s.ahead[len(kept):])
		s.ahead = kept
	}
	if met && len(s.ahead) == 0 {
		s.endPull()
	}
	return nil
}

// startPull follows a store from the position on, unless one is followed.
func (s *sequence) startPull(ctx context.Context) {
	if s.pull != nil || s.retryAt != nil {
		return
	}
	after := s.position.At
	if !s.known || s.rebase {
		s.rebase = true
		after = logid.ID{}
	}
	ctx, s.stopPull = context.WithCancel(ctx)
	pull := make(chan news)
	s.pull = pull
	s.quiet.Reset(pullQuietTimes * s.config.SilenceMax)
	s.wg.Go(func() { s.reader.follow(ctx, after, pull) })
}

func (s *sequence) endPull() {
	if s.pull == nil {
		return
	}
	s.stopPull()
	s.pull = nil
	s.quiet.Stop()
	// Silence may have passed unheeded while the store was followed.
	s.silence.Reset(s.config.SilenceMax)
}

func (s *sequence) restartPull(ctx context.Context) {
	if s.pull == nil && !s.rebase {
		return
	}
	s.endPull()
	s.startPull(ctx)
}

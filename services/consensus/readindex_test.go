package consensus_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/consensus"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/inproc"
)

// leader answers read indexes from a counter, and can hold its answers back.
type leader struct {
	consensuspb.UnimplementedConsensusServer
	id       uint64
	term     *atomic.Uint64 // of the cluster; its leader is (term-1)%2+1
	index    *atomic.Uint64
	changed  chan struct{}
	asked    chan struct{}
	hold     chan struct{} // nil answers at once
	inflight atomic.Int64
	most     atomic.Int64
	count    atomic.Int64
}

func (l *leader) Observe(_ *consensuspb.ObserveRequest, stream consensuspb.Consensus_ObserveServer) error {
	for {
		term := l.term.Load()
		s := &consensuspb.Status{ClusterId: 1, MemberId: l.id, Epoch: 1, Term: term, Leader: (term-1)%2 + 1, Commit: term, Members: []*consensuspb.Member{
			{Id: 1, ConsensusAddress: "c1"}, {Id: 2, ConsensusAddress: "c2"},
		}}
		if s.Leader == l.id {
			s.Role = consensuspb.Status_LEADER
		}
		if err := stream.Send(s); err != nil {
			return err
		}
		select {
		case <-l.changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (l *leader) ReadIndex(ctx context.Context, _ *consensuspb.ReadIndexRequest) (*consensuspb.ReadIndexResponse, error) {
	l.count.Add(1)
	l.most.Store(max(l.most.Load(), l.inflight.Add(1)))
	defer l.inflight.Add(-1)
	term := l.term.Load()
	if (term-1)%2+1 != l.id {
		return nil, errs.ErrNotLeader
	}
	index := l.index.Load()
	if l.hold != nil {
		l.asked <- struct{}{}
		select {
		case <-l.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &consensuspb.ReadIndexResponse{Read: &logpb.LogID{Epoch: 1, Index: index, Term: term}, Term: term}, nil
}

type pair struct {
	one, two    *leader
	term, index atomic.Uint64
	reads       *consensus.ReadIndexer
	stop        func()
}

func newPair(t testing.TB, hold chan struct{}) *pair {
	p := &pair{}
	p.term.Store(1)
	f := inproc.NewFabric()
	serve := func(id uint64, addr string) *leader {
		l := &leader{id: id, term: &p.term, index: &p.index, changed: make(chan struct{}, 1), asked: make(chan struct{}, 16)}
		s := f.Server(addr)
		consensuspb.RegisterConsensusServer(s, l)
		t.Cleanup(s.Stop)
		return l
	}
	p.one, p.two = serve(1, "c1"), serve(2, "c2")
	p.one.hold = hold
	d := cluster.New(cluster.Config{Seeds: []string{"c1", "c2"}, Dialer: f})
	p.reads = consensus.NewReadIndexer(d, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = d.Run(ctx) })
	wg.Go(func() { _ = p.reads.Run(ctx) })
	p.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(p.stop)
	return p
}

func (p *pair) elect() {
	p.term.Add(1)
	p.one.changed <- struct{}{}
	p.two.changed <- struct{}{}
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestReadIndexCoversWhatWasWrittenBefore(t *testing.T) {
	p := newPair(t, nil)
	ctx := within(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				before := p.index.Add(1)
				id, term, err := p.reads.Wait(ctx)
				if err != nil || uint64(id.Index) < before || term != 1 {
					t.Errorf("read index %v at term %d after %d was written: %v", id, term, before, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if most := p.one.most.Load(); most != 1 {
		t.Errorf("%d questions in flight at once", most)
	}
}

func TestReadsThatArriveMeanwhileShareTheNextQuestion(t *testing.T) {
	hold := make(chan struct{})
	p := newPair(t, hold)
	ctx := within(t)
	var wg sync.WaitGroup
	wait := func() {
		wg.Go(func() {
			if _, _, err := p.reads.Wait(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wait()
	<-p.one.asked
	p.index.Store(5)
	late := make(chan error, 10)
	for range 10 {
		go func() {
			id, _, err := p.reads.Wait(ctx)
			if err == nil && id.Index != 5 {
				err = errors.New("answered by a question that was asked before")
			}
			late <- err
		}()
	}
	hold <- struct{}{}
	wg.Wait()
	close(hold)
	for range 10 {
		if err := <-late; err != nil {
			t.Error(err)
		}
	}
}

func TestLeaderChangeAsksTheNewLeader(t *testing.T) {
	p := newPair(t, make(chan struct{})) // member 1 never answers
	result := make(chan error, 1)
	go func() {
		_, term, err := p.reads.Wait(within(t))
		if err == nil && term != 2 {
			err = errors.New("answer of an old leader")
		}
		result <- err
	}()
	<-p.one.asked
	p.elect()
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestUnansweredQuestionIsAskedAgain(t *testing.T) {
	hold := make(chan struct{})
	p := newPair(t, hold)
	result := make(chan error, 1)
	go func() {
		_, _, err := p.reads.Wait(within(t))
		result <- err
	}()
	<-p.one.asked
	<-p.one.asked // the first was given up
	hold <- struct{}{}
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestWaitEndsWithItsContextAndWithRun(t *testing.T) {
	p := newPair(t, make(chan struct{}))
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 2)
	wait := func(ctx context.Context) {
		_, _, err := p.reads.Wait(ctx)
		result <- err
	}
	go wait(ctx)
	<-p.one.asked
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	go wait(context.Background())
	<-p.one.asked
	p.stop()
	if err := <-result; !errors.Is(err, errs.ErrStopped) {
		t.Errorf("got %v", err)
	}
	if _, _, err := p.reads.Wait(context.Background()); !errors.Is(err, errs.ErrStopped) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkWait(b *testing.B) {
	p := newPair(b, nil)
	b.SetParallelism(100)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, _, err := p.reads.Wait(context.Background()); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/float64(p.one.count.Load()), "reads/question")
}

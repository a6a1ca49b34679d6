package store

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

// errAskAnother ends a question at a store that broke, is not ready or is slow.
var errAskAnother = errors.New("store: ask another one")

// slowTicks is how many ticks of a link's clock make SlowAfter.
const slowTicks = 4

// slowStrikesMax bounds how often the time doubles for which a store is avoided
// that is slow time and again.
const slowStrikesMax = 4

// link is a Reader's stream to one store.
type link struct {
	reader *Reader
	member uint64
	calls  sync.Pool
	wake   chan struct{}
	// avoidUntil is when the store may be asked first again, in Unix
	// nanoseconds.
	avoidUntil atomic.Int64

	mu struct {
		sync.Mutex
		stopped bool
		id      uint64
		pending map[uint64]*question // sent and queued
		lanes   [2]lane
		tick    int
		strikes int  // times that it was slow since it last answered
		waiting bool // the sender found nothing to send
	}
}

// lane holds the questions of one kind of floor: 0 serializable, 1 not. They do
// not share messages, so that a serializable read never waits for a position.
type lane struct {
	queue   []*question
	batches int // sent and not answered
}

// question is one read at one store. It is answered once.
type question struct {
	request *storepb.ReadRequest
	floor   Floor
	tick    int
	batch   *int // questions of its message that are not answered; nil while queued
	lane    *lane
	done    chan struct{}
	result  Result
	err     error
}

func newLink(r *Reader, member uint64) *link {
	l := &link{reader: r, member: member, wake: make(chan struct{}, 1)}
	l.mu.pending = make(map[uint64]*question)
	return l
}

func (l *link) avoided() bool {
	until := l.avoidUntil.Load()
	return until != 0 && time.Now().UnixNano() < until
}

func (l *link) avoid(d time.Duration) { l.avoidUntil.Store(time.Now().Add(d).UnixNano()) }

// ask waits for the answer of this store. errAskAnother says that it has none.
func (l *link) ask(ctx context.Context, read *storepb.ReadRequest, floor Floor) (Result, error) {
	q, id, err := l.enqueue(read, floor)
	if err != nil {
		return Result{}, err
	}
	select {
	case <-q.done:
	case <-ctx.Done():
		if l.withdraw(id) {
			return Result{}, ctx.Err()
		}
		<-q.done
	}
	result, err := q.result, q.err
	*q = question{done: q.done}
	l.calls.Put(q)
	if err == nil && result.Error != "" {
		if result.Error == notReady {
			return Result{}, errAskAnother
		}
		return result, errs.FromText(result.Error)
	}
	return result, err
}

var notReady = errs.Text(errs.ErrNotReady)

func (l *link) enqueue(read *storepb.ReadRequest, floor Floor) (*question, uint64, error) {
	q, ok := l.calls.Get().(*question)
	if !ok {
		q = &question{done: make(chan struct{}, 1)}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.stopped {
		return nil, 0, errs.ErrStopped
	}
	if len(l.mu.pending) >= l.reader.config.PendingReadsMax {
		return nil, 0, errs.ErrTooManyRequests
	}
	l.mu.id++
	id := l.mu.id
	q.request = &storepb.ReadRequest{Id: id, Kind: read.Kind, Body: read.Body, User: read.User, AuthRevision: read.AuthRevision}
	q.floor, q.tick = floor, l.mu.tick
	q.lane = &l.mu.lanes[0]
	if floor.Index > 0 {
		q.lane = &l.mu.lanes[1]
	}
	l.mu.pending[id] = q
	q.lane.queue = append(q.lane.queue, q)
	l.wakeLocked()
	return q, id, nil
}

// withdraw forgets a question whose asker has gone; false if it was answered.
// Its place in a message stays counted until that is answered.
func (l *link) withdraw(id uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	q, ok := l.mu.pending[id]
	if !ok {
		return false
	}
	l.dropLocked(id, q)
	return true
}

// dropLocked takes a question out of the queue, or leaves a stand-in for it in
// its message.
func (l *link) dropLocked(id uint64, q *question) {
	if q.batch != nil {
		l.mu.pending[id] = &question{batch: q.batch, lane: q.lane, tick: q.tick}
		return
	}
	delete(l.mu.pending, id)
	for i, other := range q.lane.queue {
		if other == q {
			q.lane.queue = append(q.lane.queue[:i], q.lane.queue[i+1:]...)
			return
		}
	}
}

func (l *link) wakeLocked() {
	if !l.mu.waiting {
		return
	}
	l.mu.waiting = false
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run opens a stream whenever there is something to ask, until ctx ends.
func (l *link) run(ctx context.Context) {
	tick := time.NewTicker(l.reader.config.SlowAfter / slowTicks)
	defer tick.Stop()
	defer l.stop()
	for l.waitQuestion(ctx) {
		err := l.stream(ctx, tick)
		if ctx.Err() != nil {
			return
		}
		l.reader.log.Debug("read stream ended", "member", l.member, "err", err)
		l.avoid(l.reader.config.BrokenPause)
		l.failAll(errAskAnother)
	}
}

func (l *link) waitQuestion(ctx context.Context) bool {
	for {
		l.mu.Lock()
		some := len(l.mu.lanes[0].queue)+len(l.mu.lanes[1].queue) > 0
		l.mu.waiting = !some
		l.mu.Unlock()
		if some {
			return ctx.Err() == nil
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			return false
		}
	}
}

// stream carries questions on one stream until that ends.
func (l *link) stream(ctx context.Context, tick *time.Ticker) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	client, err := l.reader.directory.Store(l.member)
	if err != nil {
		return err
	}
	stream, err := client.Read(ctx)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	wg.Go(func() { ended <- l.receive(stream) })
	wg.Go(func() { l.send(ctx, stream) })
	for {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
			l.onTick()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *link) send(ctx context.Context, stream storepb.Store_ReadClient) {
	for ctx.Err() == nil {
		runtime.Gosched() // let those who are about to ask do it now
		batch := l.gather()
		if batch != nil {
			if stream.Send(batch) != nil {
				return // the receiver knows why
			}
			continue
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
		}
	}
}

// gather takes the next message of questions, nil when there is none to send.
func (l *link) gather() *storepb.ReadBatch {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.mu.lanes {
		a := &l.mu.lanes[i]
		if len(a.queue) > 0 && a.batches < l.reader.config.InflightBatchesMax {
			a.batches++
			return a.take(&l.reader.config)
		}
	}
	l.mu.waiting = true
	return nil
}

// take makes a message of the head of the queue. Its floor is the highest of its
// questions', which arrived together.
func (a *lane) take(c *ReaderConfig) *storepb.ReadBatch {
	b := &storepb.ReadBatch{Epoch: uint64(a.queue[0].floor.Epoch)}
	n, size := 0, 0
	for _, q := range a.queue {
		size += len(q.request.Body) + 16
		if n == c.BatchReadsMax || n > 0 && (size > c.BatchBytesMax || uint64(q.floor.Epoch) != b.Epoch) {
			break
		}
		b.MinIndex = max(b.MinIndex, uint64(q.floor.Index))
		b.MinRevision = max(b.MinRevision, q.floor.Revision)
		n++
	}
	left := n
	b.Reads = make([]*storepb.ReadRequest, n)
	for i, q := range a.queue[:n] {
		b.Reads[i] = q.request
		q.batch = &left
	}
	rest := copy(a.queue, a.queue[n:])
	clear(a.queue[rest:])
	a.queue = a.queue[:rest]
	return b
}

func (l *link) receive(stream storepb.Store_ReadClient) error {
	for {
		results, err := stream.Recv()
		if err != nil {
			return err
		}
		l.onResults(results)
	}
}

func (l *link) onResults(results *storepb.ReadResults) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.strikes = 0
	for _, r := range results.Results {
		q, ok := l.mu.pending[r.Id]
		if !ok || q.batch == nil {
			continue
		}
		delete(l.mu.pending, r.Id)
		if *q.batch--; *q.batch == 0 {
			q.lane.batches--
		}
		q.answer(Result{ReadResult: r, Term: logid.Term(results.RaftTerm), Member: l.member}, nil)
	}
	l.wakeLocked()
}

// answer ends a question, unless it is the stand-in of one that was dropped.
func (q *question) answer(r Result, err error) {
	if q.done != nil {
		q.result, q.err = r, err
		q.done <- struct{}{}
	}
}

// onTick sends the askers of old questions to another store.
func (l *link) onTick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.tick++
	slow := false
	for id, q := range l.mu.pending {
		if q.done != nil && l.mu.tick-q.tick > slowTicks {
			l.dropLocked(id, q)
			q.answer(Result{}, errAskAnother)
			slow = true
		}
	}
	if slow {
		l.avoid(l.reader.config.SlowAfter << min(l.mu.strikes, slowStrikesMax))
		l.mu.strikes++
	}
}

// failAll ends every question, sent or not.
func (l *link) failAll(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.mu.pending {
		q.answer(Result{}, err)
	}
	clear(l.mu.pending)
	l.mu.lanes = [2]lane{}
}

func (l *link) stop() {
	l.mu.Lock()
	l.mu.stopped = true
	l.mu.Unlock()
	l.failAll(errs.ErrStopped)
}

// storeFailed tells whether an error is about the store rather than about the
// question.
func storeFailed(err error) bool {
	if errors.Is(err, errs.ErrNotReady) || errors.Is(err, errs.ErrStopped) {
		return true
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.Unimplemented, codes.Internal, codes.DataLoss:
		return true
	case codes.Unknown:
		_, isStatus := status.FromError(err)
		return !isStatus
	}
	return false
}

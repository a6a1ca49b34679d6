package session

import (
	"context"
	"crypto/rand"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/invariant"
)

// window is what a session knows of its commands: those that wait to be sent,
// and those in flight under consecutive numbers.
//
//	answered | first ... cursor ... next-1 | queue
//	          \ in flight: sent at least once    \ no number yet
//
// The current stream has been sent everything in flight below cursor; a new
// stream starts with cursor at first.
type window struct {
	config Config
	metric *metrics
	calls  sync.Pool
	// wake tells the sender that it may find something to send.
	wake chan struct{}

	mu struct {
		sync.Mutex
		identity identity

		queue      deque[*call]
		queueBytes int
		withdrawn  int // abandoned commands that are still in queue

		first         uint64
		inflight      deque[slot]
		inflightBytes int
		unanswered    int
		answers       uint64 // commands answered since the start

		stream   uint64 // number of the current Propose stream
		cursor   int
		opening  bool          // the current stream has been sent the open
		payloads deque[uint64] // last number of each payload of the current stream
		waiting  bool          // the sender found nothing to send

		stopped bool
		failed  bool
		emptied chan struct{}
	}
}

// identity is which session the numbers in flight belong to.
type identity struct {
	// id is 0 until the session is open.
	id    uint64
	nonce []byte
}

// call is one command and who waits for it.
type call struct {
	command *logpb.Command
	// answered receives once, when outcome and err are set, unless abandoned.
	answered chan struct{}
	outcome  *storepb.Outcome
	err      error

	// The rest is guarded by the window.
	place     place
	abandoned bool
}

// slot is a number in flight. It keeps the command until everything before it
// is answered too, since a new stream must not leave a number out.
type slot struct {
	command *logpb.Command
	// call is nil once it was answered.
	call *call
	// sends counts the payloads that the command went out with.
	sends int
	// refused: its outcome says that the session is unknown.
	refused bool
}

type place int

const (
	queued place = iota
	inflight
	done
)

// commandOverhead is what a command costs beside its body: its fields in a
// payload and its memory here, roughly.
const commandOverhead = 32

func cost(c *logpb.Command) int { return len(c.Body) + commandOverhead }

func newWindow(c Config, m *metrics) *window {
	w := &window{config: c, metric: m, wake: make(chan struct{}, 1)}
	w.mu.first = 1
	w.mu.identity.nonce = newNonce()
	return w
}

func newNonce() []byte {
	nonce := make([]byte, 16)
	rand.Read(nonce) // never fails
	return nonce
}

// enqueue adds a command to the queue.
func (w *window) enqueue(kind logpb.Command_Kind, body []byte) (*call, error) {
	c := w.newCall(kind, body)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.stopped {
		return nil, errs.ErrStopped
	}
	if w.mu.queue.len()-w.mu.withdrawn >= w.config.QueueCommandsMax || w.mu.queueBytes >= w.config.QueueBytesMax {
		return nil, errs.ErrTooManyRequests
	}
	w.enqueueLocked(c)
	return c, nil
}

// enqueueClose adds the session's last command, after stop.
func (w *window) enqueueClose() *call {
	c := w.newCall(logpb.Command_SESSION_CLOSE, nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.enqueueLocked(c)
	return c
}

func (w *window) newCall(kind logpb.Command_Kind, body []byte) *call {
	c, ok := w.calls.Get().(*call)
	if !ok {
		c = &call{answered: make(chan struct{}, 1)}
	}
	c.command = &logpb.Command{Kind: kind, Body: body}
	return c
}

// recycle takes back a call whose answer was taken.
func (w *window) recycle(c *call) {
	*c = call{answered: c.answered}
	w.calls.Put(c)
}

func (w *window) enqueueLocked(c *call) {
	w.mu.queue.push(c)
	w.mu.queueBytes += cost(c.command)
	w.wakeLocked()
}

// abandon says that nobody waits for c any more. It tells whether c was answered
// already. A command without a number is withdrawn; one with a number stays in
// flight.
func (w *window) abandon(c *call) (answered bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.place == done {
		return true
	}
	c.abandoned = true
	if c.place == queued {
		w.mu.queueBytes -= cost(c.command)
		c.command = nil
		w.mu.withdrawn++
		w.maybeCompactLocked()
	}
	return false
}

// maybeCompactLocked drops withdrawn commands once they are the most, so that
// callers that give up while nobody leads do not fill the queue.
func (w *window) maybeCompactLocked() {
	if w.mu.withdrawn < 64 || 2*w.mu.withdrawn < w.mu.queue.len() {
		return
	}
	for range w.mu.queue.len() {
		if c := w.mu.queue.pop(); !c.abandoned {
			w.mu.queue.push(c)
		}
	}
	w.mu.withdrawn = 0
}

func (w *window) identity() identity {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.identity
}

// unansweredAfter is the number after which outcomes are wanted.
func (w *window) unansweredAfter() (identity, uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.identity, w.mu.first - 1
}

// load tells how many commands were ever answered, and whether any outcome or
// the opening is awaited.
func (w *window) load() (answers uint64, awaited bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.metric.inflight.Set(float64(w.mu.unanswered))
	w.metric.queued.Set(float64(w.mu.queue.len() - w.mu.withdrawn))
	return w.mu.answers, w.mu.unanswered > 0 || w.mu.identity.id == 0
}

// wakeLocked wakes the sender if it waits.
func (w *window) wakeLocked() {
	if !w.mu.waiting {
		return
	}
	w.mu.waiting = false
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// answerLocked ends the wait of the call in a slot.
func (w *window) answerLocked(s *slot, o *storepb.Outcome, err error) {
	if s.call == nil {
		return
	}
	w.mu.unanswered--
	w.mu.answers++
	s.call.answer(o, err)
	s.call = nil
}

// answer hands the end to the waiter. The call is the waiter's from then on.
func (c *call) answer(o *storepb.Outcome, err error) {
	c.place = done
	if !c.abandoned {
		c.outcome, c.err = o, err
		c.answered <- struct{}{}
	}
}

// advanceLocked moves first beyond what is answered.
func (w *window) advanceLocked() {
	for w.mu.inflight.len() > 0 && w.mu.inflight.at(0).call == nil {
		w.mu.inflightBytes -= cost(w.mu.inflight.pop().command)
		w.mu.first++
		w.mu.cursor = max(0, w.mu.cursor-1)
	}
	for w.mu.payloads.len() > 0 && *w.mu.payloads.at(0) < w.mu.first {
		w.mu.payloads.pop()
	}
	if w.mu.emptied != nil && w.emptyLocked() {
		close(w.mu.emptied)
		w.mu.emptied = nil
	}
	if invariant.On {
		invariant.Check(w.mu.cursor <= w.mu.inflight.len() && (w.mu.inflight.len() > 0 || w.mu.inflightBytes == 0),
			"cursor %d of %d in flight, %d bytes", w.mu.cursor, w.mu.inflight.len(), w.mu.inflightBytes)
	}
	w.wakeLocked()
}

func (w *window) emptyLocked() bool {
	return w.mu.inflight.len() == 0 && w.mu.queue.len() == w.mu.withdrawn
}

// stop refuses commands from now on; those that are here go on.
func (w *window) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.stopped = true
}

// waitEmpty waits until every command is answered.
func (w *window) waitEmpty(ctx context.Context) error {
	w.mu.Lock()
	if w.emptyLocked() {
		w.mu.Unlock()
		return nil
	}
	if w.mu.emptied == nil {
		w.mu.emptied = make(chan struct{})
	}
	emptied := w.mu.emptied
	w.mu.Unlock()
	select {
	case <-emptied:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fail answers everything that is left, since nothing will be sent or received
// any more.
func (w *window) fail() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.stopped = true
	for i := range w.mu.inflight.len() {
		w.answerLocked(w.mu.inflight.at(i), nil, rpctypes.ErrGRPCTimeout)
	}
	w.advanceLocked()
	for w.mu.queue.len() > 0 {
		if c := w.mu.queue.pop(); !c.abandoned {
			c.answer(nil, errs.ErrStopped)
		}
	}
	w.mu.withdrawn, w.mu.queueBytes = 0, 0
}

package session_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/goleak"

	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a session against m until the test ends.
func start(t testing.TB, m *memory, c session.Config) (*session.Session, context.CancelFunc) {
	t.Helper()
	if c.Owner == "" {
		c.Owner = "gateway"
	}
	s := session.New(c, m.directory(t), nil, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	stop := func() { cancel(); <-done }
	t.Cleanup(stop)
	return s, stop
}

func timeout(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func put(ctx context.Context, s *session.Session, body string) error {
	o, err := s.Propose(ctx, logpb.Command_PUT, []byte(body))
	if err == nil && string(o.Body) != body {
		return fmt.Errorf("outcome %q for %q", o.Body, body)
	}
	return err
}

// until waits for a condition of the cluster.
func (m *memory) until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	ctx := timeout(t)
	for {
		m.mu.Lock()
		ok, changed := holds(), m.mu.changed
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

func (m *memory) bodies(id uint64) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mu.stores[id].bodies)
}

func TestProposeReturnsItsOutcome(t *testing.T) {
	m := newMemory(t, 3)
	s, stop := start(t, m, session.Config{})
	for i := range 100 {
		if err := put(timeout(t), s, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if s.Attached() != 1 {
		t.Errorf("attached to %d, want the leader's store", s.Attached())
	}
	stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, session := range m.mu.stores[1].sessions {
		if !session.closed {
			t.Errorf("session %d is open after a graceful stop", id)
		}
	}
}

func TestProposeWaitsForALeader(t *testing.T) {
	m := newMemory(t, 3)
	m.elect(0, 0)
	s, _ := start(t, m, session.Config{})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if err := put(ctx, s, "withdrawn"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	result := make(chan error, 1)
	go func() { result <- put(timeout(t), s, "kept") }()
	m.elect(2, 0)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if got := m.bodies(1); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("applied %q", got)
	}
}

func TestLeaderChangeThatLosesTheTailIsInvisible(t *testing.T) {
	m := newMemory(t, 3)
	s, _ := start(t, m, session.Config{InflightPayloadsMax: 100})
	if err := put(timeout(t), s, "first"); err != nil {
		t.Fatal(err)
	}
	for keep := range 4 {
		m.do(func() { m.mu.hold = true })
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				if err := put(timeout(t), s, fmt.Sprintf("%d-%d", keep, i)); err != nil {
					t.Error(err)
				}
			})
		}
		m.until(t, "a tail", func() bool { return len(m.mu.tail) > 0 })
		m.elect(uint64(keep%3)+1, keep)
		m.do(func() { m.mu.hold = false })
		wg.Wait()
	}
	requireOnce(t, m, 17)
}

func TestPausedLeaderIsAbandoned(t *testing.T) {
	m := newMemory(t, 3)
	s, _ := start(t, m, session.Config{StallAfter: time.Hour})
	if err := put(timeout(t), s, "before"); err != nil {
		t.Fatal(err)
	}
	m.do(func() { m.mu.paused[1] = true })
	result := make(chan error, 1)
	go func() { result <- put(timeout(t), s, "through") }()
	m.elect(2, 0)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if s.Attached() != 2 {
		t.Errorf("attached to %d, want 2", s.Attached())
	}
}

func TestSilentStoreIsLeft(t *testing.T) {
	m := newMemory(t, 3)
	s, _ := start(t, m, session.Config{StallAfter: 40 * time.Millisecond})
	if err := put(timeout(t), s, "before"); err != nil {
		t.Fatal(err)
	}
	m.do(func() { m.mu.stores[1].frozen = true })
	if err := put(timeout(t), s, "through"); err != nil {
		t.Fatal(err)
	}
}

func TestOutcomeLostAtOneStoreIsFoundAtAnother(t *testing.T) {
	m := newMemory(t, 3)
	s, _ := start(t, m, session.Config{})
	if err := put(timeout(t), s, "before"); err != nil {
		t.Fatal(err)
	}
	m.do(func() { m.mu.hold = true })
	result := make(chan error, 1)
	go func() { result <- put(timeout(t), s, "through") }()
	m.until(t, "a tail", func() bool { return len(m.mu.tail) > 0 })
	m.mu.Lock()
	m.mu.log = append(m.mu.log, m.mu.tail...) // applied by nobody yet
	m.mu.tail = nil
	m.mu.stores[1].apply(uint64(len(m.mu.log)), m.mu.log[len(m.mu.log)-1].payload)
	m.mu.stores[1].applied++
	m.mu.Unlock()
	m.restartStore(1, true)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	requireOnce(t, m, 2)
}

func TestOutcomeLostEverywhereIsOpen(t *testing.T) {
	m := newMemory(t, 3)
	s, _ := start(t, m, session.Config{})
	if err := put(timeout(t), s, "before"); err != nil {
		t.Fatal(err)
	}
	m.do(func() { m.mu.hold = true })
	result := make(chan error, 1)
	go func() { result <- put(timeout(t), s, "open") }()
	m.until(t, "a tail", func() bool { return len(m.mu.tail) > 0 })
	m.mu.Lock()
	m.mu.log = append(m.mu.log, m.mu.tail...)
	m.mu.tail, m.mu.hold = nil, false
	for _, store := range m.mu.stores {
		store.apply(uint64(len(m.mu.log)), m.mu.log[len(m.mu.log)-1].payload)
		store.applied++
		for _, session := range store.sessions {
			clear(session.outcomes)
		}
	}
	m.mu.Unlock()
	m.do(func() {})
	if err := <-result; !errors.Is(err, rpctypes.ErrGRPCTimeout) {
		t.Fatalf("got %v, want etcd's timeout", err)
	}
	if err := put(timeout(t), s, "after"); err != nil {
		t.Fatal(err)
	}
	requireOnce(t, m, 3)
}

// TestEvictionIsInvisibleToWhatWasProposedOnce evicts between proposals and under
// proposals that are in flight. None of them was proposed twice, so that the
// refusals are definite and all of them succeed, once.
func TestEvictionIsInvisibleToWhatWasProposedOnce(t *testing.T) {
	m := newMemory(t, 3)
	s, _ := start(t, m, session.Config{PayloadCommandsMax: 3, RetryMax: 5 * time.Millisecond})
	n := 0
	for round := range 5 {
		if err := put(timeout(t), s, fmt.Sprint(round)); err != nil {
			t.Fatal(err)
		}
		first := s.ID()
		m.do(func() { m.mu.hold = true })
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if err := put(timeout(t), s, fmt.Sprintf("%d-%d", round, i)); err != nil {
					t.Error(err)
				}
			})
		}
		m.until(t, "a tail", func() bool { return len(m.mu.tail) >= 4 })
		m.evict()
		m.do(func() { m.mu.hold = false })
		wg.Wait()
		if s.ID() == first || s.ID() == 0 {
			t.Errorf("session %d after %d", s.ID(), first)
		}
		n += 21
	}
	requireOnce(t, m, n)
}

// TestTwoSessionsOfOneOwnerTakeTurns has two processes with one name evict each
// other. Nothing is doubled, and they do not spin.
func TestTwoSessionsOfOneOwnerTakeTurns(t *testing.T) {
	m := newMemory(t, 3)
	one, _ := start(t, m, session.Config{})
	two, _ := start(t, m, session.Config{})
	var wg sync.WaitGroup
	for i, s := range []*session.Session{one, two} {
		wg.Go(func() {
			for j := range 5 {
				err := put(timeout(t), s, fmt.Sprintf("%d-%d", i, j))
				if err != nil && !errors.Is(err, rpctypes.ErrGRPCTimeout) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	requireOnce(t, m, -1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.mu.stores[1].sessions); n > 30 {
		t.Errorf("%d sessions were opened for 10 commands", n)
	}
}

func TestLimitsRefuse(t *testing.T) {
	m := newMemory(t, 3)
	m.elect(0, 0)
	s, stop := start(t, m, session.Config{CommandBytesMax: 10, QueueCommandsMax: 2, CloseTimeout: time.Millisecond})
	if err := put(timeout(t), s, "01234567890"); !errors.Is(err, errs.ErrPayloadTooLarge) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(timeout(t))
	defer cancel()
	results := make(chan error, 3)
	for range 3 {
		go func() { results <- put(ctx, s, "x") }()
	}
	if err := <-results; !errors.Is(err, errs.ErrTooManyRequests) {
		t.Errorf("got %v", err)
	}
	stop()
	for range 2 {
		if err := <-results; !errors.Is(err, errs.ErrStopped) {
			t.Errorf("got %v", err)
		}
	}
	if err := put(timeout(t), s, "x"); !errors.Is(err, errs.ErrStopped) {
		t.Errorf("got %v", err)
	}
}

func TestLargeCommandsTravelAlone(t *testing.T) {
	m := newMemory(t, 3)
	s, _ := start(t, m, session.Config{PayloadBytesMax: 1000, InflightBytesMax: 5000})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := put(timeout(t), s, fmt.Sprintf("%0*d", 400+i*200, i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	requireOnce(t, m, 50)
}

// requireOnce requires that every store applied n different bodies, in one order.
func requireOnce(t *testing.T, m *memory, n int) {
	t.Helper()
	m.do(func() {
		for _, s := range m.mu.stores {
			s.frozen = false
		}
	})
	want := m.bodies(1)
	for id := range m.mu.stores {
		if got := m.bodies(id); !slices.Equal(got, want) {
			t.Errorf("store %d applied %d, store 1 %d, or in another order", id, len(got), len(want))
		}
	}
	slices.Sort(want)
	if u := slices.Compact(slices.Clone(want)); len(u) != len(want) || n >= 0 && len(u) != n {
		t.Errorf("%d commands applied, %d different, want %d", len(want), len(u), n)
	}
}

// TestFaultsNeitherLoseNorRepeat writes through random leader changes, lost
// tails, restarted and frozen stores. Every acknowledged write is there once, and
// no other one twice.
func TestFaultsNeitherLoseNorRepeat(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { faults(t, newMemory(t, 3), seed) })
	}
	t.Run("network", func(t *testing.T) { faults(t, newMemoryOver(t, 3, dial.NewGRPC()), 1) })
}

func faults(t *testing.T, m *memory, seed uint64) {
	s, _ := start(t, m, session.Config{StallAfter: 40 * time.Millisecond, RetryMax: 20 * time.Millisecond, PayloadCommandsMax: 5})
	ctx, cancel := context.WithCancel(timeout(t))
	var faults sync.WaitGroup
	faults.Go(func() { m.breakThings(ctx, rand.New(rand.NewPCG(seed, 1))) })
	const writers, writes = 8, 60
	var acked sync.Map
	var wg sync.WaitGroup
	for w := range writers {
		rnd := rand.New(rand.NewPCG(seed, uint64(w)+2))
		wg.Go(func() {
			for i := 0; i < writes && !t.Failed(); i++ {
				write(t, s, rnd, fmt.Sprintf("%d-%d", w, i), &acked)
			}
		})
	}
	wg.Wait()
	cancel()
	faults.Wait()
	m.do(func() { m.mu.hold = false })
	requireOnce(t, m, -1)
	applied := m.bodies(1)
	n := 0
	acked.Range(func(body, _ any) bool {
		n++
		if !slices.Contains(applied, body.(string)) {
			t.Errorf("acknowledged %v is not there", body)
		}
		return true
	})
	if n < writers*writes/2 {
		t.Errorf("only %d of %d writes were acknowledged", n, writers*writes)
	}
}

// write proposes a body, now and then with little patience.
func write(t *testing.T, s *session.Session, rnd *rand.Rand, body string, acked *sync.Map) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	impatient := rnd.IntN(10) == 0
	if impatient {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(rnd.IntN(3000))*time.Microsecond)
	}
	defer cancel()
	err := put(ctx, s, body)
	switch {
	case err == nil:
		acked.Store(body, true)
	case impatient && errors.Is(err, context.DeadlineExceeded):
	case errors.Is(err, rpctypes.ErrGRPCTimeout):
	default:
		t.Errorf("%s: %v", body, err)
	}
}

// breakThings injects one fault after another until ctx ends, then mends all.
func (m *memory) breakThings(ctx context.Context, rnd *rand.Rand) {
	every := 2 * time.Millisecond
	if m.remote != nil {
		every = 30 * time.Millisecond // else it does nothing but connect
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			m.do(func() {
				m.mu.hold = false
				for _, s := range m.mu.stores {
					s.frozen = false
				}
			})
			m.elect(1, 0)
			return
		case <-tick.C:
		}
		id := uint64(rnd.IntN(3)) + 1
		switch rnd.IntN(9) {
		case 8:
			if rnd.IntN(4) == 0 {
				m.evict()
			}
		case 0:
			m.elect(id, rnd.IntN(4))
		case 1:
			m.elect(0, rnd.IntN(4))
			m.elect(id, 0)
		case 2:
			m.restartStore(id, rnd.IntN(3) == 0)
		case 3:
			m.do(func() { m.mu.stores[id].frozen = !m.mu.stores[id].frozen })
		case 4:
			m.do(func() { m.mu.hold = true })
		default:
			m.do(func() {
				m.mu.hold = false
				for _, s := range m.mu.stores {
					s.frozen = false
				}
			})
		}
	}
}

func BenchmarkPropose(b *testing.B) {
	for _, callers := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("inproc/callers=%d", callers), func(b *testing.B) {
			benchmark(b, newMemory(b, 1), callers)
		})
		b.Run(fmt.Sprintf("grpc/callers=%d", callers), func(b *testing.B) {
			benchmark(b, newMemoryOver(b, 1, dial.NewGRPC()), callers)
		})
	}
}

func benchmark(b *testing.B, m *memory, callers int) {
	s, _ := start(b, m, session.Config{})
	body := make([]byte, 256)
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for c := range callers {
		wg.Go(func() {
			for i := c; i < b.N; i += callers {
				if _, err := s.Propose(context.Background(), logpb.Command_PUT, body); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	b.ReportMetric(float64(b.N)/float64(m.mu.taken), "commands/payload")
}

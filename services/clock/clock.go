// Package clock is monotonic time as a dependency, so that whoever is driven
// by time can be driven by a test instead.
//
// Now is a duration since an origin of the Clock's own: it never jumps with the
// wall clock, and two Clocks' values do not compare.
package clock

import (
	"sync"
	"time"
)

// Clock tells monotonic time and makes tickers.
type Clock interface {
	// Now is the time since the Clock's origin.
	Now() time.Duration
	// Ticker sends on its channel each d, dropping ticks that nobody takes.
	Ticker(d time.Duration) Ticker
}

// Ticker is stopped by its owner.
type Ticker interface {
	C() <-chan time.Time
	Stop()
}

// Real is the machine's monotonic clock.
func Real() Clock { return realClock{time.Now()} }

type realClock struct{ origin time.Time }

func (r realClock) Now() time.Duration            { return time.Since(r.origin) }
func (r realClock) Ticker(d time.Duration) Ticker { return realTicker{time.NewTicker(d)} }

type realTicker struct{ *time.Ticker }

func (r realTicker) C() <-chan time.Time { return r.Ticker.C }

// Manual moves only when told. The zero value stands at 0.
type Manual struct {
	mu struct {
		sync.Mutex
		now     time.Duration
		tickers []*manualTicker
	}
}

// Now implements Clock.
func (m *Manual) Now() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.now
}

// Ticker implements Clock.
func (m *Manual) Ticker(d time.Duration) Ticker {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &manualTicker{clock: m, every: d, next: m.mu.now + d, c: make(chan time.Time, 1)}
	m.mu.tickers = append(m.mu.tickers, t)
	return t
}

// Advance moves time and fires the tickers that became due, once each.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.now += d
	for _, t := range m.mu.tickers {
		if t.next > m.mu.now {
			continue
		}
		for t.next <= m.mu.now {
			t.next += t.every
		}
		select {
		case t.c <- time.Time{}.Add(m.mu.now):
		default:
		}
	}
}

type manualTicker struct {
	clock *Manual
	every time.Duration
	next  time.Duration
	c     chan time.Time
}

func (t *manualTicker) C() <-chan time.Time { return t.c }

func (t *manualTicker) Stop() {
	m := t.clock
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, other := range m.mu.tickers {
		if other == t {
			m.mu.tickers = append(m.mu.tickers[:i], m.mu.tickers[i+1:]...)
			return
		}
	}
}

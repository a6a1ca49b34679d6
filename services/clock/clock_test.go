package clock_test

import (
	"testing"
	"time"

	"github.com/quartet-kv/quartet/services/clock"
)

func TestManualFiresDueTickersOnce(t *testing.T) {
	var m clock.Manual
	fast, slow := m.Ticker(time.Second), m.Ticker(time.Minute)
	m.Advance(3 * time.Second)
	select {
	case <-fast.C():
	default:
		t.Fatal("a due ticker did not fire")
	}
	select {
	case <-fast.C():
		t.Fatal("ticks that nobody took must be dropped")
	case <-slow.C():
		t.Fatal("a ticker fired early")
	default:
	}
	fast.Stop()
	m.Advance(time.Minute)
	select {
	case <-fast.C():
		t.Fatal("a stopped ticker fired")
	case <-slow.C():
	}
	if m.Now() != 63*time.Second {
		t.Fatalf("now is %v", m.Now())
	}
}

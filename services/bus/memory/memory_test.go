package memory_test

import (
	"testing"

	"github.com/quartet-kv/quartet/services/bus"
	"github.com/quartet-kv/quartet/services/bus/bustest"
	"github.com/quartet-kv/quartet/services/bus/memory"
)

func TestMemoryIsABus(t *testing.T) {
	bustest.Run(t, func(*testing.T) (bus.Publisher, bus.Subscriber) {
		b := memory.New(bustest.Limits)
		return b, b
	})
}

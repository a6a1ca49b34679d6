package nats_test

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/quartet-kv/quartet/services/bus"
	"github.com/quartet-kv/quartet/services/bus/bustest"
	"github.com/quartet-kv/quartet/services/bus/nats"
	"github.com/quartet-kv/quartet/services/bus/natsserver"
)

func serve(t *testing.T, c natsserver.Config) *natsserver.Server {
	t.Helper()
	s, err := natsserver.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func connect(t *testing.T, urls ...string) *nats.Bus {
	t.Helper()
	b, err := nats.Connect(nats.Config{URLs: urls, Queue: bustest.Limits})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestNATSIsABus(t *testing.T) {
	s := serve(t, natsserver.Config{})
	bustest.Run(t, func(t *testing.T) (bus.Publisher, bus.Subscriber) {
		return connect(t, s.URL()), connect(t, s.URL())
	})
}

func TestOutageIsALapseAndOldNewsStaysAway(t *testing.T) {
	first := serve(t, natsserver.Config{})
	u, err := url.Parse(first.URL())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	b := connect(t, first.URL())
	sub, err := b.Subscribe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	publishUntilHeard(ctx, t, b, sub, 1)

	first.Stop()
	for b.Publish(ctx, bustest.Batch(2)) == nil { // until the loss is noticed
		if ctx.Err() != nil {
			t.Fatal("publishing into an outage never fails")
		}
	}
	serve(t, natsserver.Config{Port: port})
	if lapsed := publishUntilHeard(ctx, t, b, sub, 3); !lapsed {
		t.Error("an outage passed without a lapse")
	}
}

// publishUntilHeard publishes batch i until it is received, and tells whether
// the subscription lapsed before. Anything but i is old news.
func publishUntilHeard(ctx context.Context, t *testing.T, b *nats.Bus, sub bus.Subscription, i uint64) (lapsed bool) {
	t.Helper()
	for {
		_ = b.Publish(ctx, bustest.Batch(i))
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		got, err := sub.Recv(short)
		cancel()
		switch {
		case err == nil && got.At.Index == i:
			return lapsed
		case err == nil && got.At.Index != i-2: // repetitions of what was heard are on their way
			t.Fatalf("heard index %d, published %d", got.At.Index, i)
		case errors.Is(err, bus.ErrLapsed):
			lapsed = true
		case ctx.Err() != nil:
			t.Fatalf("index %d is never heard", i)
		}
	}
}

func TestConnectDoesNotNeedAServer(t *testing.T) {
	b := connect(t, "nats://127.0.0.1:1")
	if b.Connected() {
		t.Error("connected to nothing")
	}
	sub, err := b.Subscribe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	sub.Close()
	if err := b.Publish(context.Background(), bustest.Batch(1)); err == nil {
		t.Error("publish without a server succeeded")
	}
}

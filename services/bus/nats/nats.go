// Package nats is the bus between processes, over core NATS: at most once, in
// order per publisher, and gone when the server is gone. JetStream is not used:
// a bus here is no place to keep anything.
//
// NATS hides trouble by default; the guards here make it visible, so that a
// bus.Reader can ask a store instead: it reconnects for ever, pings often enough
// to see a dead server within seconds, keeps nothing to publish after an outage
// (old news would look like new), and turns each reconnect and each drop into
// bus.ErrLapsed.
package nats

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/services/bus"
)

// Limits of a connection.
const (
	pingEvery       = 2 * time.Second
	pingsMissedMax  = 2
	reconnectPause  = 100 * time.Millisecond
	reconnectJitter = 50 * time.Millisecond
	connectTimeout  = 2 * time.Second
	flushTimeout    = 2 * time.Second
	// pendingMax bounds what the NATS library itself queues for a subscription;
	// its callback never blocks, so that it stays empty.
	pendingMessagesMax = 65536
	pendingBytesMax    = 64 << 20
)

// Config is what a Bus needs.
type Config struct {
	// URLs of NATS servers, one that answers is enough.
	URLs []string
	// Name of this client in the server's monitoring.
	Name string
	// Subject that everything is published on; default "quartet.bus". Clusters
	// that share a server need not differ in it: each batch names its cluster.
	Subject string
	// Queue bounds each subscription.
	Queue bus.QueueLimits
	// Log; nil discards.
	Log *slog.Logger
}

// Bus is a bus.Publisher and a bus.Subscriber over one connection.
type Bus struct {
	config Config
	log    *slog.Logger
	conn   *natsgo.Conn

	mu struct {
		sync.Mutex
		queues map[*bus.Queue]struct{}
	}
}

// Connect returns a Bus at once, connected or not: it connects, and connects
// again, in the background until Close.
func Connect(c Config) (*Bus, error) {
	if c.Subject == "" {
		c.Subject = "quartet.bus"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	b := &Bus{config: c, log: c.Log}
	b.mu.queues = make(map[*bus.Queue]struct{})
	o := natsgo.GetDefaultOptions()
	o.Servers = c.URLs
	o.Name = c.Name
	o.MaxReconnect = -1
	o.RetryOnFailedConnect = true
	o.ReconnectBufSize = -1
	o.ReconnectWait = reconnectPause
	o.ReconnectJitter = reconnectJitter
	o.PingInterval = pingEvery
	o.MaxPingsOut = pingsMissedMax
	o.Timeout = connectTimeout
	o.FlusherTimeout = flushTimeout
	o.DisconnectedErrCB = func(_ *natsgo.Conn, err error) { b.onLapse("bus disconnected", err) }
	o.ReconnectedCB = func(*natsgo.Conn) { b.onLapse("bus connected again", nil) }
	o.ConnectedCB = func(*natsgo.Conn) { b.onLapse("bus connected", nil) }
	o.AsyncErrorCB = func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) { b.onLapse("bus trouble", err) }
	conn, err := o.Connect()
	if err != nil {
		return nil, fmt.Errorf("connect to NATS %v: %w", c.URLs, err)
	}
	b.conn = conn
	return b, nil
}

// Publish implements bus.Publisher. A batch that is larger than the server takes
// goes out without its revisions, marked to be pulled. Without a connection it
// fails at once.
func (b *Bus) Publish(_ context.Context, batch *buspb.Batch) error {
	if !b.conn.IsConnected() {
		return natsgo.ErrConnectionClosed
	}
	data, err := b.encode(batch, b.conn.MaxPayload())
	if err != nil {
		return err
	}
	if err := b.conn.Publish(b.config.Subject, data); err != nil {
		return fmt.Errorf("publish %d bytes: %w", len(data), err)
	}
	return nil
}

func (b *Bus) encode(batch *buspb.Batch, bytesMax int64) ([]byte, error) {
	if int64(bus.SizeOf(batch)) <= bytesMax {
		data, err := proto.Marshal(batch)
		if err != nil || int64(len(data)) <= bytesMax {
			return data, err
		}
	}
	return proto.Marshal(bus.ToPull(batch))
}

// Subscribe implements bus.Subscriber.
func (b *Bus) Subscribe(context.Context) (bus.Subscription, error) {
	var sub *natsgo.Subscription
	var q *bus.Queue
	q = bus.NewQueue(b.config.Queue, func() {
		b.mu.Lock()
		delete(b.mu.queues, q)
		b.mu.Unlock()
		if err := sub.Unsubscribe(); err != nil {
			b.log.Debug("unsubscribe", "err", err)
		}
	})
	sub, err := b.conn.Subscribe(b.config.Subject, func(m *natsgo.Msg) { b.hear(q, m.Data) })
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", b.config.Subject, err)
	}
	if err := sub.SetPendingLimits(pendingMessagesMax, pendingBytesMax); err != nil {
		return nil, fmt.Errorf("limit subscription: %w", err)
	}
	b.mu.Lock()
	b.mu.queues[q] = struct{}{}
	b.mu.Unlock()
	return q, nil
}

func (b *Bus) hear(q *bus.Queue, data []byte) {
	batch := &buspb.Batch{}
	if err := proto.Unmarshal(data, batch); err != nil {
		b.log.Warn("not a batch", "subject", b.config.Subject, "bytes", len(data), "err", err)
		q.Lapse()
		return
	}
	q.Offer(batch, len(data))
}

// onLapse tells every subscription that it may have missed something.
func (b *Bus) onLapse(what string, err error) {
	b.log.Info(what, "err", err)
	b.mu.Lock()
	defer b.mu.Unlock()
	for q := range b.mu.queues {
		q.Lapse()
	}
}

// Connected tells whether a server is connected now.
func (b *Bus) Connected() bool { return b.conn.IsConnected() }

// Close ends the connection and every subscription.
func (b *Bus) Close() {
	b.mu.Lock()
	queues := make([]*bus.Queue, 0, len(b.mu.queues))
	for q := range b.mu.queues {
		queues = append(queues, q)
	}
	b.mu.Unlock()
	for _, q := range queues {
		q.Close()
	}
	b.conn.Close()
}

// Package dial is how daemons reach each other: by address, without knowing
// whether the other end is in this process or across a network.
package dial

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// Class separates traffic that must never wait for other traffic: each class
// has a connection of its own.
type Class int

const (
	// Control is for messages that are small and must be prompt.
	Control Class = iota
	// Bulk is for large appends, scans, exports and histories.
	Bulk
)

// ErrUnknownAddress is returned by a Dialer that does not serve the address.
var ErrUnknownAddress = errors.New("dial: unknown address")

// errClosed is returned by a GRPC after Close.
var errClosed = errors.New("dial: closed")

// Dialer finds the connection to an address. It never blocks: a connection is
// made when it is first used, and made again when it breaks. Connections are
// shared by all callers and are closed by whoever made the Dialer.
type Dialer interface {
	Dial(addr string, class Class) (grpc.ClientConnInterface, error)
}

// Overlay asks each Dialer in turn and takes the first that knows the address.
func Overlay(dialers ...Dialer) Dialer { return overlay(dialers) }

type overlay []Dialer

func (o overlay) Dial(addr string, class Class) (grpc.ClientConnInterface, error) {
	for _, d := range o {
		conn, err := d.Dial(addr, class)
		if !errors.Is(err, ErrUnknownAddress) {
			return conn, err
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrUnknownAddress, addr)
}

// Limits of an internal connection.
const (
	// MessageBytesMax is the largest message between daemons: the largest
	// request with room for what a batch adds around it.
	MessageBytesMax = 64 << 20
	// keepaliveTime and keepaliveTimeout find a peer that vanished without
	// closing its connection.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
	// reconnectMax bounds the pause between tries to connect, so that a peer
	// that comes back is found at once.
	reconnectMax = 500 * time.Millisecond
	bufferBytes  = 64 << 10
)

// GRPC dials over the network. The zero value is not usable; see NewGRPC.
type GRPC struct {
	options []grpc.DialOption

	mu struct {
		sync.Mutex
		conns  map[connKey]*grpc.ClientConn
		closed bool
	}
}

type connKey struct {
	addr  string
	class Class
}

// NewGRPC returns a Dialer over the network; extra options come after its own.
func NewGRPC(extra ...grpc.DialOption) *GRPC {
	g := &GRPC{options: append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MessageBytesMax), grpc.MaxCallSendMsgSize(MessageBytesMax)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithReadBufferSize(bufferBytes),
		grpc.WithWriteBufferSize(bufferBytes),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
	}, extra...)}
	g.mu.conns = make(map[connKey]*grpc.ClientConn)
	return g
}

// Dial returns the connection to addr (host:port or unix:path).
func (g *GRPC) Dial(addr string, class Class) (grpc.ClientConnInterface, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.closed {
		return nil, errClosed
	}
	key := connKey{addr, class}
	if conn, ok := g.mu.conns[key]; ok {
		return conn, nil
	}
	target := addr
	if len(addr) < 5 || addr[:5] != "unix:" {
		target = "passthrough:///" + addr
	}
	conn, err := grpc.NewClient(target, g.options...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	g.mu.conns[key] = conn
	return conn, nil
}

// Close closes every connection; Dial fails from then on.
func (g *GRPC) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.closed = true
	var all []error
	for key, conn := range g.mu.conns {
		all = append(all, conn.Close())
		delete(g.mu.conns, key)
	}
	return errors.Join(all...)
}

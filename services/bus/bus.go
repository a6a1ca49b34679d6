package bus

import (
	"context"
	"errors"
	"time"

	"github.com/quartet-kv/quartet/proto/buspb"
)

// HeartbeatEvery is how often an idle publisher says that nothing happened, with
// a batch whose prev_index is its own index.
const HeartbeatEvery = 100 * time.Millisecond

// Publisher is where a store says what it applied.
type Publisher interface {
	// Publish spreads a batch to whoever subscribes, at most once to each. It
	// never waits for a receiver. An error says that the batch went nowhere;
	// the publisher goes on with the next one, receivers find the gap.
	// The batch must not change afterwards.
	Publish(ctx context.Context, b *buspb.Batch) error
}

// Subscriber is where a gateway hears it.
type Subscriber interface {
	// Subscribe starts to hear. It does not wait for a connection: what is
	// published right after it returns may still be missed.
	Subscribe(ctx context.Context) (Subscription, error)
}

// Subscription is one receiver's queue, bounded: under pressure batches are
// dropped, and Recv says ErrLapsed in their place.
type Subscription interface {
	// Recv returns the next batch: at most once, in the order of its publisher.
	// ErrLapsed says that batches may have been missed here; the subscription
	// goes on. Any other error but ctx's ends it. The batch is shared: it must
	// not be changed. One goroutine calls Recv.
	Recv(ctx context.Context) (*buspb.Batch, error)
	// Close ends the subscription; Recv returns ErrClosed from then on.
	Close()
}

var (
	// ErrLapsed is returned by Recv where batches may have been missed: the
	// receiver was slow, or the connection was made anew.
	ErrLapsed = errors.New("bus: batches may have been missed")

	// ErrClosed is returned by Recv of a closed Subscription, and by Publish and
	// Subscribe of a closed bus.
	ErrClosed = errors.New("bus: closed")
)

package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// workload is one thing to measure. run returns one latency per operation.
type workload struct {
	title   string
	prepare func(context.Context, *load) error
	run     func(context.Context, *load) ([]time.Duration, error)
}

// workloads by name, as --workloads takes them.
var workloads = map[string]workload{
	"put":              {"put", nil, runPut},
	"get":              {"get, linearizable", fill, runGet()},
	"get-serializable": {"get, serializable", fill, runGet(clientv3.WithSerializable())},
	"range-1000":       {"range of 1000 keys", fill, runRange(1000)},
	"range-all":        {"range of all keys", fill, runRange(0)},
	"txn-mixed":        {"txn, half read, half compare and put", fill, runTxnMixed},
	"watch":            {"watch, one writer, events delivered", nil, runWatch},
	"keep-alive":       {"lease keep-alive", nil, runKeepAlive},
}

func workloadNames() []string {
	return []string{"put", "get", "get-serializable", "range-1000", "range-all", "txn-mixed", "watch", "keep-alive"}
}

const (
	keyPrefix  = "b/"
	putsPerTxn = 100 // when filling
)

// key is the nth key, of the configured size.
func (l *load) key(n int) string {
	return fmt.Sprintf("%s%0*d", keyPrefix, l.cfg.KeySize-len(keyPrefix), n)
}

func (l *load) anyKey() string { return l.key(rand.IntN(l.cfg.Keys)) }

func (l *load) value() string { return strings.Repeat("v", l.cfg.ValueSize) }

// fill writes every key that is missing.
func fill(ctx context.Context, l *load) error {
	cl := l.client(0)
	have, err := cl.Get(ctx, keyPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || have.Count >= int64(l.cfg.Keys) {
		return err
	}
	for i := 0; i < l.cfg.Keys; i += putsPerTxn {
		var puts []clientv3.Op
		for n := i; n < min(i+putsPerTxn, l.cfg.Keys); n++ {
			puts = append(puts, clientv3.OpPut(l.key(n), l.value()))
		}
		if _, err := cl.Txn(ctx).Then(puts...).Commit(); err != nil {
			return err
		}
	}
	return nil
}

func runPut(ctx context.Context, l *load) ([]time.Duration, error) {
	value := l.value()
	return each(ctx, l, func(ctx context.Context, w, _ int) error {
		_, err := l.client(w).Put(ctx, l.anyKey(), value)
		return err
	})
}

func runGet(opts ...clientv3.OpOption) func(context.Context, *load) ([]time.Duration, error) {
	return func(ctx context.Context, l *load) ([]time.Duration, error) {
		return each(ctx, l, func(ctx context.Context, w, _ int) error {
			_, err := l.client(w).Get(ctx, l.anyKey(), opts...)
			return err
		})
	}
}

// runRange reads limit keys from the first one (0: all), in one answer. Ranges
// are large, so fewer of them, from fewer callers.
func runRange(limit int64) func(context.Context, *load) ([]time.Duration, error) {
	const share, callers = 100, 10
	return func(ctx context.Context, l *load) ([]time.Duration, error) {
		l.cfg.Clients = min(l.cfg.Clients, callers)
		l.left.Store(int64(max(1, l.cfg.Total/share)))
		return each(ctx, l, func(ctx context.Context, w, _ int) error {
			_, err := l.client(w).Get(ctx, keyPrefix, clientv3.WithPrefix(), clientv3.WithLimit(limit))
			return err
		})
	}
}

func runTxnMixed(ctx context.Context, l *load) ([]time.Duration, error) {
	value := l.value()
	return each(ctx, l, func(ctx context.Context, w, n int) error {
		txn := l.client(w).Txn(ctx)
		key := l.anyKey()
		if (w+n)%2 == 0 {
			_, err := txn.Then(clientv3.OpGet(key)).Commit()
			return err
		}
		_, err := txn.If(clientv3.Compare(clientv3.Version(key), ">", 0)).Then(clientv3.OpPut(key, value)).Commit()
		return err
	})
}

// runWatch lets one writer put a key that all watchers watch. An operation is an
// event delivered; its latency runs from before the put.
func runWatch(ctx context.Context, l *load) ([]time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	key := fmt.Sprintf("%swatched-%d", keyPrefix, rand.Int64())
	puts := max(1, l.cfg.Total/l.cfg.Watchers)
	perWatcher := make([][]time.Duration, l.cfg.Watchers)
	var wg sync.WaitGroup
	for i := range l.cfg.Watchers {
		ch := l.client(i).Watch(ctx, key, clientv3.WithCreatedNotify())
		if resp := <-ch; resp.Err() != nil || !resp.Created {
			return nil, fmt.Errorf("create watch: %v", resp.Err())
		}
		wg.Go(func() { perWatcher[i] = takeEvents(ch, puts) })
	}
	began := time.Now()
	value := []byte(l.value())
	for range puts {
		binary.BigEndian.PutUint64(value, uint64(time.Since(began)))
		binary.BigEndian.PutUint64(value[8:], uint64(began.UnixNano()))
		if _, err := l.client(0).Put(ctx, key, string(value)); err != nil {
			return nil, err
		}
	}
	wg.Wait()
	latencies := slices.Concat(perWatcher...)
	if want := puts * l.cfg.Watchers; len(latencies) != want {
		return nil, fmt.Errorf("%d events delivered, want %d", len(latencies), want)
	}
	return latencies, ctx.Err()
}

func takeEvents(ch clientv3.WatchChan, n int) []time.Duration {
	var latencies []time.Duration
	for resp := range ch {
		for _, ev := range resp.Events {
			value := ev.Kv.Value
			put := time.Unix(0, int64(binary.BigEndian.Uint64(value[8:]))).Add(time.Duration(binary.BigEndian.Uint64(value)))
			latencies = append(latencies, time.Since(put))
		}
		if len(latencies) >= n || resp.Canceled {
			break
		}
	}
	return latencies
}

// runKeepAlive renews a lease per caller as etcd's own benchmark does: each time
// on a stream of its own.
func runKeepAlive(ctx context.Context, l *load) ([]time.Duration, error) {
	const ttl = 600
	ids := make([]clientv3.LeaseID, l.cfg.Clients)
	for w := range ids {
		lease, err := l.client(w).Grant(ctx, ttl)
		if err != nil {
			return nil, err
		}
		ids[w] = lease.ID
	}
	return each(ctx, l, func(ctx context.Context, w, _ int) error {
		_, err := l.client(w).KeepAliveOnce(ctx, ids[w])
		return err
	})
}

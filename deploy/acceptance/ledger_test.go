package acceptance

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const (
	ledgerWriters = 4
	writeWithin   = 30 * time.Second // one write: longer than any change of leader
	resumeWithin  = 10 * time.Second // from a fault to a write begun after it
)

// ledger is a load of which every write can be accounted for. Each writer puts
// 1, 2, 3, ... into a key of its own, through a client that never retries, and
// notes what it was told; a watcher at every endpoint notes what it was shown.
// Afterwards history says what happened.
type ledger struct {
	t      *testing.T
	tg     *target
	prefix string
	base   int64

	stop     chan struct{}
	writers  sync.WaitGroup
	watchers []*ledgerWatcher

	mu struct {
		sync.Mutex
		acked    map[string]int64 // "key=value" to the revision it was acknowledged at
		begun    time.Time        // when the latest begun of the acknowledged writes began
		failures []string         // writes of which the writer does not know
		slowest  time.Duration
	}
}

// ledgerWatcher notes events as text, in the order in which they came.
type ledgerWatcher struct {
	name string
	mu   struct {
		sync.Mutex
		events []string
		last   int64 // revision
		err    error
	}
}

// openLedger starts writers and watchers; close stops and checks them.
func openLedger(t *testing.T, tg *target) *ledger {
	t.Helper()
	l := &ledger{t: t, tg: tg, prefix: fmt.Sprintf("ledger/%d/", tg.scenes.Add(1)), stop: make(chan struct{})}
	l.mu.acked = map[string]int64{}
	first, err := tg.client.Put(t.Context(), l.prefix, "opened")
	if err != nil {
		t.Fatal(err)
	}
	l.base = first.Header.Revision
	for i := range tg.Endpoints() {
		l.startWatcher(i)
	}
	for w := range ledgerWriters {
		cl := l.client(0)
		l.writers.Go(func() { l.write(cl, fmt.Sprintf("%sw%d", l.prefix, w)) })
	}
	return l
}

// client never tries a request twice; it prefers no endpoint but begins at the
// given one.
func (l *ledger) client(first int) *clientv3.Client {
	eps := l.tg.Endpoints()
	eps = slices.Concat(eps[first:], eps[:first])
	cl, err := clientv3.New(clientv3.Config{Endpoints: eps, MaxUnaryRetries: 1, Logger: zap.NewNop(), DialTimeout: resumeWithin})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { cl.Close() })
	return cl
}

func (l *ledger) write(cl *clientv3.Client, key string) {
	for n := 1; ; n++ {
		select {
		case <-l.stop:
			return
		default:
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), writeWithin)
		resp, err := cl.Put(ctx, key, strconv.Itoa(n))
		cancel()
		l.note(key, n, began, resp, err)
	}
}

func (l *ledger) note(key string, n int, began time.Time, resp *clientv3.PutResponse, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.mu.failures = append(l.mu.failures, fmt.Sprintf("%s=%d after %v: %v", key, n, time.Since(began), err))
		return
	}
	l.mu.acked[fmt.Sprintf("%s=%d", key, n)] = resp.Header.Revision
	l.mu.slowest = max(l.mu.slowest, time.Since(began))
	if began.After(l.mu.begun) {
		l.mu.begun = began
	}
}

func (l *ledger) startWatcher(endpoint int) {
	cl := l.client(endpoint)
	w := &ledgerWatcher{name: "watcher " + strconv.Itoa(endpoint+1)}
	w.mu.last = l.base
	ch := cl.Watch(l.t.Context(), l.prefix, clientv3.WithPrefix(), clientv3.WithRev(l.base), clientv3.WithPrevKV())
	l.watchers = append(l.watchers, w)
	go func() {
		for resp := range ch {
			w.note(resp)
		}
	}()
}

func (w *ledgerWatcher) note(resp clientv3.WatchResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := resp.Err(); err != nil {
		w.mu.err = err
	}
	for _, ev := range resp.Events {
		w.mu.events = append(w.mu.events, ledgerEvent(ev))
		w.mu.last = ev.Kv.ModRevision
	}
}

func ledgerEvent(ev *clientv3.Event) string {
	return fmt.Sprintf("%d %v %s=%s v%d prev v%d", ev.Kv.ModRevision, ev.Type, ev.Kv.Key, ev.Kv.Value, ev.Kv.Version, ev.PrevKv.GetVersion())
}

func (w *ledgerWatcher) lastRevision() (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.last, w.mu.err
}

// waitWrites waits until a write that began after now was acknowledged.
func (l *ledger) waitWrites(t *testing.T) {
	t.Helper()
	from := time.Now()
	l.waitFor(t, "a write begun after the fault", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.mu.begun.After(from)
	})
	t.Logf("a write begun after it was acknowledged within %v", time.Since(from).Round(time.Millisecond))
}

// waitWatchers waits until every watcher has seen what is written by now.
func (l *ledger) waitWatchers(t *testing.T) {
	t.Helper()
	var now int64
	l.mu.Lock()
	for _, rev := range l.mu.acked {
		now = max(now, rev)
	}
	l.mu.Unlock()
	for _, w := range l.watchers {
		l.waitFor(t, w.name+" to reach what is acknowledged", func() bool {
			last, err := w.lastRevision()
			return last >= now || err != nil
		})
	}
}

func (l *ledger) waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(resumeWithin)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %v for %s", resumeWithin, what)
		}
	}
}

// failed is how many writes failed so far.
func (l *ledger) failed() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.mu.failures)
}

// close stops the writers, waits for the watchers and compares what writers and
// watchers noted with history.
func (l *ledger) close() {
	l.t.Helper()
	close(l.stop)
	l.writers.Wait()
	l.waitWatchers(l.t)
	history := l.history()
	l.checkWrites(history)
	for _, w := range l.watchers {
		w.mu.Lock()
		if w.mu.err != nil {
			l.t.Errorf("%s ended: %v", w.name, w.mu.err)
		}
		compareEvents(l.t, w.name, w.mu.events, history)
		w.mu.Unlock()
	}
	l.t.Logf("%d events, %d writes acknowledged, %d failed, the slowest took %v",
		len(history), len(l.mu.acked), len(l.mu.failures), l.mu.slowest.Round(time.Millisecond))
}

// history reads all events up to now, once everything is quiet.
func (l *ledger) history() []string {
	ctx, cancel := context.WithTimeout(l.t.Context(), testWithin)
	defer cancel()
	now, err := l.tg.client.Get(ctx, l.prefix, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend), clientv3.WithLimit(1))
	if err != nil {
		l.t.Fatal(err)
	}
	end := now.Kvs[0].ModRevision
	var events []string
	for resp := range l.tg.client.Watch(ctx, l.prefix, clientv3.WithPrefix(), clientv3.WithRev(l.base), clientv3.WithPrevKV()) {
		if err := resp.Err(); err != nil {
			l.t.Fatal(err)
		}
		for _, ev := range resp.Events {
			events = append(events, ledgerEvent(ev))
			if ev.Kv.ModRevision == end {
				return events
			}
		}
	}
	l.t.Fatalf("history ended before revision %d", end)
	return nil
}

// checkWrites finds acknowledged writes that are not where they were said to be
// and writes that were applied twice.
func (l *ledger) checkWrites(history []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	applied := map[string]int64{}
	versions := map[string]int64{}
	for _, text := range history {
		var rev, version, prev int64
		var typ, write string
		if _, err := fmt.Sscanf(text, "%d %s %s v%d prev v%d", &rev, &typ, &write, &version, &prev); err != nil {
			l.t.Fatalf("event %q: %v", text, err)
		}
		if first, ok := applied[write]; ok {
			l.t.Errorf("%s was applied twice, at %d and %d", write, first, rev)
		}
		applied[write] = rev
		key, _, _ := strings.Cut(write, "=")
		if version != versions[key]+1 || prev != versions[key] {
			l.t.Errorf("event %q follows version %d of its key", text, versions[key])
		}
		versions[key] = version
	}
	for write, rev := range l.mu.acked {
		if applied[write] != rev {
			l.t.Errorf("%s was acknowledged at %d and is in history at %d", write, rev, applied[write])
		}
	}
}

// compareEvents reports the first difference. A watcher may have seen more than
// history was asked for: a write whose writer gave up may be applied late.
func compareEvents(t *testing.T, name string, got, want []string) {
	t.Helper()
	for i := range want {
		if i >= len(got) {
			t.Errorf("%s saw %d events of %d; the next is %q", name, len(got), len(want), want[i])
			return
		}
		if got[i] != want[i] {
			t.Errorf("%s, event %d:\n got %s\nwant %s", name, i, got[i], want[i])
			return
		}
	}
}

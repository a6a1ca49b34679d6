package acceptance

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quartet-kv/quartet/deploy/harness"
)

// onFaultTargets runs a test on a new cluster of each kind that has processes to
// kill. On etcd it runs only when asked for: there it tests the test.
func onFaultTargets(t *testing.T, test func(*testing.T, *target), kinds ...harness.Kind) {
	if !current.explicit && !inCI() {
		kinds = quartetOnly(kinds)
	}
	onFresh(t, harness.Options{}, test, kinds...)
}

func quartetOnly(kinds []harness.Kind) []harness.Kind {
	var some []harness.Kind
	for _, k := range kinds {
		if k.Quartet() {
			some = append(some, k)
		}
	}
	return some
}

// pieces are the processes of a cluster that a test may kill: every daemon in
// split, every member elsewhere.
func (tg *target) pieces() []string {
	var names []string
	for _, p := range tg.Processes() {
		if tg.Kind() == harness.Split && (p.Address == "" || strings.HasPrefix(p.Name, "nats")) {
			continue
		}
		names = append(names, p.Name)
	}
	return names
}

// memberPieces are the processes of a member that hold its state: its daemons
// in split (a gateway belongs to no member), its only process elsewhere.
func (tg *target) memberPieces(number int) []string {
	if tg.Kind() != harness.Split {
		return []string{fmt.Sprintf("m%d", number)}
	}
	var names []string
	for _, daemon := range []string{"consensusd", "stored", "leased"} {
		names = append(names, fmt.Sprintf("%s-%d", daemon, number))
	}
	return names
}

func TestKillOfEveryProcess(t *testing.T) {
	onFaultTargets(t, func(t *testing.T, tg *target) {
		l := openLedger(t, tg)
		l.waitWrites(t)
		for _, name := range tg.pieces() {
			t.Run(name, func(t *testing.T) { killAndRestart(t, tg, l, name) })
		}
		t.Run("the leader's member", func(t *testing.T) {
			number, _, err := tg.Leader(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			killAndRestart(t, tg, l, tg.memberPieces(number)...)
		})
		l.close()
	}, harness.Split, harness.Compact, harness.Etcd37)
}

// killAndRestart kills processes, waits for writes to go on, starts them again.
// Only a gateway takes writes in flight with it: whatever else ends, no client
// of Quartet sees a write fail.
func killAndRestart(t *testing.T, tg *target, l *ledger, names ...string) {
	ctx, cancel := context.WithTimeout(t.Context(), testWithin)
	defer cancel()
	before := len(l.failed())
	for _, name := range names {
		if err := tg.Kill(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	l.waitWrites(t)
	for _, name := range names {
		if err := tg.Restart(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		if err := tg.WaitHealthy(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	l.waitWrites(t)
	l.waitWatchers(t)
	failed := l.failed()[before:]
	if tg.Kind() == harness.Split && !strings.HasPrefix(names[0], "gatewayd") && len(failed) > 0 {
		t.Errorf("%d writes failed although every gateway lived: %v", len(failed), failed)
	}
}

// TestPausedLeader: a leader that is stopped for longer than an election and
// wakes again costs no write and shows nothing old.
func TestPausedLeader(t *testing.T) {
	onFaultTargets(t, func(t *testing.T, tg *target) {
		l := openLedger(t, tg)
		l.waitWrites(t)
		number, _, err := tg.Leader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		name := tg.memberPieces(number)[0]
		if err := tg.Pause(name); err != nil {
			t.Fatal(err)
		}
		l.waitWrites(t)
		if err := tg.Resume(name); err != nil {
			t.Fatal(err)
		}
		l.waitWrites(t)
		if failed := l.failed(); tg.Kind() == harness.Split && len(failed) > 0 {
			t.Errorf("%d writes failed although every gateway lived: %v", len(failed), failed)
		}
		l.close()
	}, harness.Split)
}

// TestNATSStopped: with NATS gone, and when it comes back, watchers lose nothing
// and see nothing twice, and neither they nor writers stand still.
func TestNATSStopped(t *testing.T) {
	onFaultTargets(t, func(t *testing.T, tg *target) {
		ctx, cancel := context.WithTimeout(t.Context(), testWithin)
		defer cancel()
		l := openLedger(t, tg)
		l.waitWrites(t)
		for _, stop := range []func(context.Context, string) error{tg.Terminate, tg.Kill} {
			if err := stop(ctx, "nats"); err != nil {
				t.Fatal(err)
			}
			l.waitWrites(t)
			l.waitWatchers(t)
			if err := tg.Restart("nats"); err != nil {
				t.Fatal(err)
			}
			if err := tg.WaitHealthy(ctx, "nats"); err != nil {
				t.Fatal(err)
			}
			l.waitWrites(t)
			l.waitWatchers(t)
		}
		if failed := l.failed(); len(failed) > 0 {
			t.Errorf("%d writes failed although only NATS was stopped: %v", len(failed), failed)
		}
		l.close()
	}, harness.Split)
}

const (
	restartKeysFull  = 1_000_000
	restartKeysShort = 10_000
	restartWithin    = 3 * time.Second // from nothing to a linearizable read on every endpoint
)

// TestStopAndStartOfEverything: same revision, same data, and ready in no time,
// however much there is.
func TestStopAndStartOfEverything(t *testing.T) {
	n := restartKeysShort
	if *fullFlag {
		n = restartKeysFull
	}
	onFaultTargets(t, func(t *testing.T, tg *target) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*testWithin)
		defer cancel()
		loadKeys(t, ctx, tg.client, n)
		before := storeDigest(t, ctx, tg.client, n)
		if err := tg.Halt(ctx); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := tg.Launch(ctx); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		t.Logf("ready after %v with %d keys", took.Round(time.Millisecond), n)
		if tg.Kind().Quartet() && !harness.Instrumented && took > restartWithin {
			t.Errorf("ready after %v, want %v", took, restartWithin)
		}
		if after := storeDigest(t, ctx, tg.client, n); after != before {
			t.Errorf("after the restart: %s, before: %s", after, before)
		}
		if _, err := tg.client.Put(ctx, "restart/after", "1"); err != nil {
			t.Error(err)
		}
	}, harness.Split, harness.Compact, harness.Up, harness.Etcd37)
}

func loadKeys(t *testing.T, ctx context.Context, cl *clientv3.Client, n int) {
	t.Helper()
	const perTxn, loaders = 100, 8
	var wg sync.WaitGroup
	for l := range loaders {
		wg.Go(func() {
			for i := l * perTxn; i < n; i += loaders * perTxn {
				var puts []clientv3.Op
				for j := i; j < min(i+perTxn, n); j++ {
					puts = append(puts, clientv3.OpPut(fmt.Sprintf("restart/%08d", j), fmt.Sprintf("value %d of a key", j)))
				}
				if _, err := cl.Txn(ctx).Then(puts...).Commit(); err != nil {
					t.Errorf("load: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// storeDigest is the revision, the count and some of the keys.
func storeDigest(t *testing.T, ctx context.Context, cl *clientv3.Client, n int) string {
	t.Helper()
	count, err := cl.Get(ctx, "restart/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("revision %d, %d keys", count.Header.Revision, count.Count)
	for i := 0; i < n; i += max(1, n/50) {
		resp, err := cl.Get(ctx, fmt.Sprintf("restart/%08d", i))
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprint(" ", resp.Kvs)
	}
	return text
}

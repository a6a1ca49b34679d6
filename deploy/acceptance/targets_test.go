package acceptance

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/quartet-kv/quartet/deploy/harness"
)

var targetsFlag = flag.String("targets", os.Getenv("ACCEPTANCE_TARGETS"),
	"comma-separated kinds of cluster to run on (up, compact, split, etcd37, etcd34); default: all that are at hand")

var fullFlag = flag.Bool("full", os.Getenv("ACCEPTANCE_FULL") != "",
	"the sizes that the promises name (100,000 objects, 1,000,000 keys) and the scripts that take a minute")

const (
	startWithin = 5 * time.Minute // includes building the program
	testWithin  = time.Minute     // one test on one target, unless it asks for more
)

// target is a running cluster with what most tests want beside it.
type target struct {
	*harness.Cluster
	client *clientv3.Client // all endpoints
	conn   *grpc.ClientConn // raw, to the first endpoint
	scenes atomic.Int64     // begun on it
}

// suite is the state of one run of the tests.
type suite struct {
	kinds    []harness.Kind
	explicit bool // asked for by name: a missing program is a failure
	bins     *harness.Binaries

	mu struct {
		sync.Mutex
		shared map[harness.Kind]*target
	}
}

var current suite

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(current.run(m))
}

func (s *suite) run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "acceptance-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	s.kinds, err = harness.ParseKinds(*targetsFlag)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	s.explicit = len(s.kinds) > 0
	if !s.explicit {
		s.kinds = harness.Kinds()
	}
	s.bins = harness.NewBinaries(dir)
	s.bins.Fetch = s.explicit || inCI()
	s.mu.shared = map[harness.Kind]*target{}
	defer s.stop()
	return max(m.Run(), s.checkEndpointsAgree())
}

// checkEndpointsAgree asks, after everything that the tests did, for the count
// of all keys and the revision at every endpoint.
func (s *suite) checkEndpointsAgree() (code int) {
	ctx, cancel := context.WithTimeout(context.Background(), testWithin)
	defer cancel()
	for kind, tg := range s.mu.shared {
		answers := map[string][]string{}
		for _, ep := range tg.Endpoints() {
			answer, err := countAt(ctx, tg, ep)
			if err != nil {
				answer = err.Error()
				code = 1
			}
			answers[answer] = append(answers[answer], ep)
		}
		if len(answers) != 1 || code != 0 {
			fmt.Printf("--- FAIL: endpoints of %s disagree after the tests: %v\n", kind, answers)
			code = 1
		}
	}
	return code
}

func countAt(ctx context.Context, tg *target, endpoint string) (string, error) {
	cl, err := tg.Client(endpoint)
	if err != nil {
		return "", err
	}
	defer cl.Close()
	resp, err := cl.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d keys at revision %d", resp.Count, resp.Header.Revision), nil
}

func (s *suite) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for kind, tg := range s.mu.shared {
		tg.client.Close()
		tg.conn.Close()
		if err := tg.Close(); err != nil {
			fmt.Fprintf(os.Stderr, "close %s: %v\n", kind, err)
		}
	}
}

func inCI() bool { return os.Getenv("CI") == "true" }

// onEach runs a test on the shared cluster of every target.
func onEach(t *testing.T, test func(*testing.T, *target)) {
	t.Helper()
	for _, kind := range current.kinds {
		t.Run(string(kind), func(t *testing.T) { test(t, current.sharedTarget(t, kind)) })
	}
}

// onFresh runs a test on a new cluster of every target among kinds (all if none
// are given), which the test may harm.
func onFresh(t *testing.T, opts harness.Options, test func(*testing.T, *target), kinds ...harness.Kind) {
	t.Helper()
	for _, kind := range current.kinds {
		if len(kinds) > 0 && !slices.Contains(kinds, kind) {
			continue
		}
		t.Run(string(kind), func(t *testing.T) {
			opts := opts
			opts.Kind = kind
			tg := current.start(t, opts)
			t.Cleanup(func() {
				tg.client.Close()
				tg.conn.Close()
				if err := tg.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			showLogsOnFailure(t, tg)
			test(t, tg)
		})
	}
}

func (s *suite) sharedTarget(t *testing.T, kind harness.Kind) *target {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	tg, ok := s.mu.shared[kind]
	if !ok {
		tg = s.start(t, harness.Options{Kind: kind})
		s.mu.shared[kind] = tg
	}
	showLogsOnFailure(t, tg)
	return tg
}

func showLogsOnFailure(t *testing.T, tg *target) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s: %d processes run; the end of their logs:\n%s", tg.Kind(), len(tg.Processes()), tg.LogTails(4))
		}
	})
}

func (s *suite) start(t *testing.T, opts harness.Options) *target {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	opts.Binaries = s.bins
	c, err := harness.Start(ctx, opts)
	if errors.Is(err, harness.ErrUnavailable) && !s.explicit && !inCI() {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	tg := &target{Cluster: c}
	if tg.client, err = c.Client(); err != nil {
		t.Fatal(err)
	}
	if tg.conn, err = dial(c.Endpoints()[0]); err != nil {
		t.Fatal(err)
	}
	return tg
}

// dial returns a raw connection, which may receive messages of any size.
func dial(endpoint string) (*grpc.ClientConn, error) {
	return grpc.NewClient(endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)))
}

// testContext ends with the test, or after testWithin.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testWithin)
	t.Cleanup(cancel)
	return ctx
}

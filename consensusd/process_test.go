package consensusd_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/quartet-kv/quartet/consensusd"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/services/daemon"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

// asDaemon makes the test's binary the daemon itself.
const asDaemon = "CONSENSUSD_TEST_AS_DAEMON"

func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" {
		daemon.Main(consensusd.Command())
		return
	}
	goleak.VerifyTestMain(m)
}

// processes are members that can be killed as an operating system kills.
type processes struct {
	t       *testing.T
	addrs   []string
	clients []consensuspb.ConsensusClient
	args    [][]string
	running []*exec.Cmd
}

func startProcesses(t *testing.T, n int) *processes {
	t.Helper()
	p := &processes{t: t, running: make([]*exec.Cmd, n)}
	var members []string
	for i := range n {
		l, err := daemon.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p.addrs = append(p.addrs, l.Addr().String())
		members = append(members, fmt.Sprintf("--member=name=m%d,peer=http://%s", i, l.Addr()))
		defer l.Close() // all ports differ; they are free again when the processes want them
	}
	dialer := dial.NewGRPC()
	t.Cleanup(func() { dialer.Close() })
	dir := t.TempDir()
	for i, addr := range p.addrs {
		p.args = append(p.args, append([]string{
			fmt.Sprintf("--name=m%d", i), "--listen=" + addr, "--data-dir=" + filepath.Join(dir, strconv.Itoa(i)),
			"--heartbeat-interval=20", "--election-timeout=200", "--segment-bytes=1048576",
		}, members...))
		conn, err := dialer.Dial(addr, dial.Control)
		if err != nil {
			t.Fatal(err)
		}
		p.clients = append(p.clients, consensuspb.NewConsensusClient(conn))
	}
	t.Cleanup(func() {
		for i := range p.running {
			p.kill(i)
		}
	})
	return p
}

func (p *processes) start(i int) {
	p.t.Helper()
	cmd := exec.Command(os.Args[0], p.args[i]...)
	cmd.Env = append(os.Environ(), asDaemon+"=1")
	cmd.Stderr = testWriter{p.t}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.running[i] = cmd
}

func (p *processes) kill(i int) {
	if cmd := p.running[i]; cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // says that it was killed
		p.running[i] = nil
	}
}

// wanderer is one store that goes from member to member: what one delivered
// must be the same history as what the next one delivers.
type wanderer struct {
	*processes
	mu  sync.Mutex
	pos logid.ID
	seq int
}

func (w *wanderer) applied() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seq
}

func (w *wanderer) run(ctx context.Context) error {
	for i := 0; ctx.Err() == nil; i++ {
		err := w.follow(ctx, w.clients[i%len(w.clients)])
		if errors.Is(err, errs.ErrLogMismatch) || errors.Is(err, errs.ErrLogTruncated) || errors.Is(err, errGap) {
			return fmt.Errorf("member %d, after %v: %w", i%len(w.clients), w.pos, err)
		}
	}
	return nil
}

var errGap = errors.New("gap")

// follow takes a few batches from one member.
func (w *wanderer) follow(ctx context.Context, c consensuspb.ConsensusClient) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	stream, err := c.Deliver(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&consensuspb.DeliverRequest{Start: &consensuspb.DeliverStart{Store: "wanderer", After: w.pos.Proto()}}); err != nil {
		return err
	}
	for range 20 {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, e := range r.Entries {
			if err := w.apply(r.Epoch, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *wanderer) apply(epoch uint64, e *consensuspb.Entry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if logid.Index(e.Index) != w.pos.Index+1 {
		return fmt.Errorf("%w: entry %d", errGap, e.Index)
	}
	w.pos = logid.ID{Epoch: logid.Epoch(epoch), Index: logid.Index(e.Index), Term: logid.Term(e.Term)}
	seq, err := strconv.Atoi(string(e.Payload))
	if err != nil || seq <= w.seq {
		return nil
	}
	if seq != w.seq+1 {
		return fmt.Errorf("%w: payload %d after %d", errGap, seq, w.seq)
	}
	w.seq = seq
	return nil
}

// propose proposes 1..last, rewinding to what is not applied on each stream.
func (w *wanderer) propose(ctx context.Context, last int) error {
	for i := 0; w.applied() < last; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		_ = w.stream(ctx, w.clients[i%len(w.clients)], last) // the next one rewinds
	}
	return nil
}

func (w *wanderer) stream(ctx context.Context, c consensuspb.ConsensusClient, last int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Propose(ctx)
	if err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { _, err := stream.Recv(); ended <- err }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for next := w.applied() + 1; w.applied() < last; {
		for ; next <= last && next <= w.applied()+100; next++ {
			if err := stream.Send(&consensuspb.ProposeRequest{Payloads: [][]byte{[]byte(strconv.Itoa(next))}}); err != nil {
				cancel()
				return <-ended
			}
		}
		select {
		case err := <-ended:
			return err
		case <-tick.C: // the window may have moved
		}
	}
	cancel()
	<-ended
	return nil
}

func TestKilledProcessesLoseNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	w := &wanderer{processes: startProcesses(t, 3)}
	for i := range w.addrs {
		w.start(i)
	}
	followed, proposed := make(chan error, 1), make(chan error, 1)
	followCtx, stopFollowing := context.WithCancel(ctx)
	go func() { followed <- w.run(followCtx) }()
	const last = 3000
	go func() { proposed <- w.propose(ctx, last) }()
	kills := 0
	for done := false; !done; {
		select {
		case err := <-proposed:
			if err != nil {
				t.Error(err)
			}
			done = true
		case err := <-followed:
			t.Fatal(err)
		case <-time.After(time.Duration(100+rand.IntN(400)) * time.Millisecond): // the pace of the kills
			i := rand.IntN(3)
			w.kill(i)
			if kills++; kills%4 == 0 { // sometimes all of them
				for j := range w.addrs {
					w.kill(j)
				}
			}
			for j := range w.addrs {
				if w.running[j] == nil {
					w.start(j)
				}
			}
		}
	}
	stopFollowing()
	if err := <-followed; err != nil {
		t.Error(err)
	}
	t.Logf("%d kills", kills)
}

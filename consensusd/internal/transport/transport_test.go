package transport

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/consensusd/internal/membership"
	"github.com/quartet-kv/quartet/proto/peerpb"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/inproc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inbox is a Receiver that keeps what it gets.
type inbox struct {
	batches     chan received
	unreachable chan uint64
}

type received struct {
	from     uint64
	messages []*raftpb.Message
	report   *peerpb.Report
}

func newInbox() *inbox {
	return &inbox{batches: make(chan received), unreachable: make(chan uint64, 1000)}
}

func (b *inbox) Receive(ctx context.Context, from uint64, m []*raftpb.Message, r *peerpb.Report) error {
	select {
	case b.batches <- received{from, m, r}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *inbox) Unreachable(peer uint64) {
	select {
	case b.unreachable <- peer:
	default:
	}
}

func newTransport(self uint64, peers map[uint64]string, d dial.Dialer) *Transport {
	vec := func(name string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name}, []string{"class"})
	}
	return New(membership.Identity{Cluster: 9, Member: self, Epoch: 1}, peers, d, slog.New(slog.DiscardHandler),
		Metrics{Sent: vec("s"), Dropped: vec("d"), SentBytes: vec("b")})
}

// pair is members 1 and 2 on a fabric.
func pair(t *testing.T) (one *Transport, two *inbox) {
	f := inproc.NewFabric()
	one = newTransport(1, map[uint64]string{2: "m2"}, f)
	other := newTransport(2, map[uint64]string{1: "m1"}, f)
	two = newInbox()
	one.Bind(newInbox())
	other.Bind(two)
	server := f.Server("m2")
	peerpb.RegisterPeerServer(server, other.Server())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- one.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		server.Stop()
	})
	return one, two
}

func message(typ raftpb.MessageType, index uint64, entries ...*raftpb.Entry) *raftpb.Message {
	return &raftpb.Message{Type: typ.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(1)), Index: new(index), Entries: entries}
}

func TestMessagesOfAClassArriveInOrder(t *testing.T) {
	one, two := pair(t)
	for range 2 { // a greeting by each stream
		if b := <-two.batches; b.from != 1 || len(b.messages) != 0 {
			t.Fatalf("greeted by %d with %d messages", b.from, len(b.messages))
		}
	}
	waitOpen(t, one.peers[2])
	one.SetReport(&peerpb.Report{Applied: 5})
	const n = 1000
	go func() {
		for i := range uint64(n) {
			one.Send([]*raftpb.Message{message(raftpb.MsgApp, i, &raftpb.Entry{Data: make([]byte, 4<<10)}), message(raftpb.MsgHeartbeat, i)})
		}
	}()
	var appends, beats uint64
	for appends < n || beats < n {
		b := <-two.batches
		for _, m := range b.messages {
			next := &appends
			if m.GetType() == raftpb.MsgHeartbeat {
				next = &beats
				if b.report.GetApplied() != 5 {
					t.Errorf("a heartbeat with the report %v", b.report)
				}
			}
			if m.GetIndex() != *next {
				t.Fatalf("%v %d where %d was due", m.GetType(), m.GetIndex(), *next)
			}
			*next++
		}
	}
}

func waitOpen(t *testing.T, p *peer) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for _, box := range []*outbox{p.control, p.bulk} {
		for open := false; !open; {
			box.mu.Lock()
			open = box.mu.open
			box.mu.Unlock()
			if time.Now().After(deadline) {
				t.Fatal("no stream")
			}
		}
	}
}

func TestFullOutboxDropsAndSaysSo(t *testing.T) {
	// A receiver that does not take anything.
	one, _ := pair(t)
	waitOpen(t, one.peers[2])
	big := make([]byte, 1<<20)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range 1000 {
			one.Send([]*raftpb.Message{message(raftpb.MsgApp, 1, &raftpb.Entry{Data: big})})
		}
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("Send waits for the network")
	}
	if peer := <-one.receiver.(*inbox).unreachable; peer != 2 {
		t.Errorf("%d is unreachable", peer)
	}
	one.peers[2].bulk.mu.Lock()
	defer one.peers[2].bulk.mu.Unlock()
	if held := one.peers[2].bulk.mu.bytes; held > outboxBytesMax {
		t.Errorf("%d bytes are queued", held)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	one := newTransport(1, map[uint64]string{2: "m2"}, inproc.NewFabric())
	forged := message(raftpb.MsgHeartbeat, 1)
	forged.From = new(uint64(3))
	encoded, err := proto.Marshal(forged)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		batch *peerpb.Messages
		want  codes.Code
	}{
		"another cluster": {&peerpb.Messages{ClusterId: 8, From: 2, To: 1}, codes.FailedPrecondition},
		"another member":  {&peerpb.Messages{ClusterId: 9, From: 2, To: 3}, codes.FailedPrecondition},
		"no member":       {&peerpb.Messages{ClusterId: 9, From: 3, To: 1}, codes.PermissionDenied},
		"forged":          {&peerpb.Messages{ClusterId: 9, From: 2, To: 1, Messages: [][]byte{encoded}}, codes.InvalidArgument},
		"garbage":         {&peerpb.Messages{ClusterId: 9, From: 2, To: 1, Messages: [][]byte{{0xff}}}, codes.InvalidArgument},
		"a greeting":      {&peerpb.Messages{ClusterId: 9, From: 2, To: 1}, codes.OK},
	} {
		if _, err := one.decode(c.batch); status.Code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

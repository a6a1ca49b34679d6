package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/quartet-kv/quartet/consensusd/internal/membership"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newHub(log *raft.MemoryStorage, ready uint64) *Hub {
	return NewHub(membership.Identity{Cluster: 9, Member: 1, Epoch: 1}, log, ready, func() {}, slog.New(slog.DiscardHandler), Metrics{
		Entries: prometheus.NewCounter(prometheus.CounterOpts{Name: "c"}),
		Streams: prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"}),
	})
}

// entries from..to, of a term and with payloads of size bytes.
func entries(term, from, to uint64, size int) (out []*raftpb.Entry) {
	for i := from; i <= to; i++ {
		data := make([]byte, size)
		copy(data, fmt.Sprint(i))
		out = append(out, &raftpb.Entry{Index: new(i), Term: new(term), Data: data})
	}
	return out
}

// fill appends to the log and advances the hub.
func fill(t *testing.T, log *raft.MemoryStorage, h *Hub, e []*raftpb.Entry) {
	t.Helper()
	if err := log.Append(e); err != nil {
		t.Fatal(err)
	}
	h.Advance(e)
}

// readAll follows the hub from pos and checks that it is contiguous and bounded.
func readAll(t *testing.T, h *Hub, pos uint64) (n int) {
	t.Helper()
	for {
		batch, _, err := h.next(pos)
		if err != nil {
			t.Fatal(err)
		}
		if len(batch) == 0 {
			return n
		}
		size := 0
		for _, e := range batch {
			if e.Index != pos+1 {
				t.Fatalf("entry %d after %d", e.Index, pos)
			}
			pos, size = e.Index, size+len(e.Payload)
		}
		if len(batch) > 1 && size > BatchBytesMax || len(batch) > batchEntriesMax {
			t.Fatalf("a batch of %d entries, %d bytes", len(batch), size)
		}
		n += len(batch)
	}
}

func TestNextReadsRingAndLogAlike(t *testing.T) {
	log := raft.NewMemoryStorage()
	h := newHub(log, 0)
	// Twice what the ring holds, and in the end small ones.
	const large = 256 << 10
	fill(t, log, h, entries(1, 1, 2*ringBytesMax/large, large))
	last := h.Ready()
	fill(t, log, h, entries(2, last+1, last+10_000, 10))
	last = h.Ready()
	if len(h.mu.ring) >= int(last) || h.mu.ringBytes > ringBytesMax+large {
		t.Fatalf("the ring holds %d entries, %d bytes", len(h.mu.ring), h.mu.ringBytes)
	}
	for _, pos := range []uint64{0, 1, 50, 100, last - 5000, last - 1, last} {
		if n := readAll(t, h, pos); n != int(last-pos) {
			t.Errorf("%d entries after %d of %d", n, pos, last)
		}
	}
}

func TestMembershipEntriesAreDeliveredEmpty(t *testing.T) {
	log := raft.NewMemoryStorage()
	h := newHub(log, 0)
	e := entries(1, 1, 1, 10)
	e[0].Type = raftpb.EntryConfChange.Enum()
	fill(t, log, h, e)
	batch, _, err := h.next(0)
	if err != nil || len(batch) != 1 || len(batch[0].Payload) != 0 {
		t.Errorf("delivered %v, %v", batch, err)
	}
}

func TestTruncatedPositions(t *testing.T) {
	log := raft.NewMemoryStorage()
	h := newHub(log, 0)
	fill(t, log, h, entries(1, 1, 100, 10))
	if err := log.Compact(50); err != nil {
		t.Fatal(err)
	}
	h.mu.ring, h.mu.ringBytes = nil, 0 // as after a restart
	ctx := context.Background()
	for id, want := range map[logid.ID]error{
		{}:                              errs.ErrLogTruncated,
		{Epoch: 1, Index: 49, Term: 1}:  errs.ErrLogTruncated,
		{Epoch: 1, Index: 50, Term: 1}:  nil,
		{Epoch: 1, Index: 100, Term: 1}: nil,
		{Epoch: 1, Index: 100, Term: 2}: errs.ErrLogMismatch,
		{Epoch: 2, Index: 100, Term: 1}: errs.ErrLogMismatch,
	} {
		if err := h.locate(ctx, id, 0); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%v: %v, want %v", id, err, want)
		}
	}
	if _, _, err := h.next(10); !errors.Is(err, errs.ErrLogTruncated) {
		t.Errorf("a stream whose entries went away got %v", err)
	}
}

func TestStoreAheadOfTheLogWaitsAWhile(t *testing.T) {
	log := raft.NewMemoryStorage()
	h := newHub(log, 0)
	fill(t, log, h, entries(1, 1, 10, 10))
	h.waitMax = 20 * time.Millisecond
	ahead := logid.ID{Epoch: 1, Index: 15, Term: 1}
	if err := h.locate(context.Background(), ahead, 9); !errors.Is(err, errs.ErrNotReady) {
		t.Errorf("got %v", err)
	}
	h.waitMax = time.Minute
	found := make(chan error, 1)
	go func() { found <- h.locate(context.Background(), ahead, 9) }()
	fill(t, log, h, entries(1, 11, 14, 10))
	fill(t, log, h, entries(1, 15, 20, 10))
	if err := <-found; err != nil {
		t.Error(err)
	}
}

func TestProgressIsTheLeastSyncedAndTheFurthestApplied(t *testing.T) {
	log := raft.NewMemoryStorage()
	h := newHub(log, 0)
	fill(t, log, h, entries(1, 1, 100, 10))
	a, b := &stream{hub: h, name: "a", wake: make(chan struct{}, 1)}, &stream{hub: h, name: "b", wake: make(chan struct{}, 1)}
	if p := h.Progress(); p != (Progress{}) {
		t.Errorf("without stores: %+v", p)
	}
	for _, s := range []*stream{a, b} {
		if err := h.attach(s, 0); err != nil {
			t.Fatal(err)
		}
	}
	at := func(i uint64) logid.ID { return logid.ID{Epoch: 1, Index: logid.Index(i), Term: 1} }
	h.progress("a", at(80), at(70))
	h.progress("b", at(60), at(50))
	if p := h.Progress(); p != (Progress{Attached: true, Applied: 80, Synced: 50}) {
		t.Errorf("two stores: %+v", p)
	}
	h.progress("a", at(1000), at(1000)) // more than was delivered
	if p := h.Progress(); p.Applied != 100 {
		t.Errorf("applied %d of 100", p.Applied)
	}
	// A store that is away still holds the log; one that lost its disk holds it all.
	h.detach(b)
	if p := h.Progress(); p != (Progress{Attached: true, Applied: 100, Synced: 50}) {
		t.Errorf("one away: %+v", p)
	}
	if err := h.attach(b, 0); err != nil {
		t.Fatal(err)
	}
	if p := h.Progress(); p.Synced != 0 {
		t.Errorf("one empty again: %+v", p)
	}
	h.detach(a)
	h.detach(b)
	if p := h.Progress(); p.Attached || p.Applied != 0 {
		t.Errorf("none attached: %+v", p)
	}
}

package watch

import (
	"runtime"
	"testing"

	"google.golang.org/grpc/mem"

	"github.com/quartet-kv/quartet/proto/buspb"
)

func entryOf(revision int64, valueBytes int) *entry {
	return newEntry(&buspb.Revision{Revision: revision, Events: []*buspb.Event{{Key: []byte("a"), Kv: make([]byte, valueBytes)}}})
}

func TestRingHoldsNoMoreThanItsBound(t *testing.T) {
	r := ring{bytesMax: 8 << 20}
	revision := int64(1)
	for ; len(r.entries) < 10_000; revision++ { // many small ones: room for as many
		r.append(entryOf(revision, 10))
	}
	snapshot, ok := r.from(revision-5, revision-1)
	if !ok || len(snapshot) != 5 || snapshot[0].revision != revision-5 {
		t.Fatalf("%d entries, %v", len(snapshot), ok)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 300 { // then large ones
		r.append(entryOf(revision, 1<<20))
		revision++
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
		t.Fatalf("holds %d MiB", grown>>20)
	}
	if r.bytes > r.bytesMax || r.first(revision-1) != revision-int64(len(r.entries)) {
		t.Fatalf("%d bytes, first %d", r.bytes, r.first(revision-1))
	}
	if _, ok := r.from(revision-100, revision-1); ok {
		t.Fatal("gave entries that it does not have")
	}
	for i, e := range snapshot {
		if e == nil || e.revision != snapshot[0].revision+int64(i) {
			t.Fatal("a slice that was handed out changed")
		}
	}
	runtime.KeepAlive(&r)
}

func responseOf(bytes int) response {
	return response{message: &Message{buffers: mem.BufferSlice{mem.SliceBuffer(make([]byte, bytes))}, bytes: bytes}, bytes: bytes}
}

func TestOutboxRefusesAndSaysOnceWhenThereIsRoom(t *testing.T) {
	o := newOutbox(100)
	if fits, wake := o.offer(responseOf(500)); !fits || !wake {
		t.Fatal("refused although nothing waits")
	}
	if fits, _ := o.offer(responseOf(1)); fits {
		t.Fatal("took more than its bound")
	}
	o.put(responseOf(10)) // an answer to the client
	taken, _ := o.take(nil)
	if len(taken) != 2 {
		t.Fatalf("took %d responses", len(taken))
	}
	if first, _ := o.sent(taken[0]); !first {
		t.Fatal("does not say that there is room")
	}
	if second, _ := o.sent(taken[1]); second {
		t.Fatal("says so twice")
	}
	for _, step := range []struct {
		bytes int
		fits  bool
	}{{60, true}, {30, true}, {60, false}} {
		if fits, _ := o.offer(responseOf(step.bytes)); fits != step.fits {
			t.Fatalf("%d bytes: want %v", step.bytes, step.fits)
		}
	}
	taken, _ = o.take(taken)
	if drained, _ := o.sent(taken[0]); !drained { // 30 are left: 60 fit
		t.Fatal("does not say that there is room")
	}
}

func TestOutboxEndWakesBothSides(t *testing.T) {
	o := newOutbox(1)
	o.put(responseOf(5))
	room := make(chan bool)
	go func() { room <- o.waitRoom() }()
	o.end(errStalled)
	o.end(nil)
	if <-room {
		t.Fatal("there is room in an outbox that has ended")
	}
	if _, err := o.take(nil); err != errStalled {
		t.Fatalf("ended with %v", err)
	}
}

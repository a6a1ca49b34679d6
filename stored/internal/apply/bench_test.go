package apply_test

import (
	"fmt"
	"log/slog"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/keyspace"
	"github.com/quartet-kv/quartet/stored/internal/apply"
	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/engine/badger"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
)

// nowhere is an engine that forgets everything, to measure what is not it.
type nowhere struct{ engine.Engine }

func (nowhere) Commit(engine.Position, []engine.Row) error { return nil }

// BenchmarkPut applies entries of 64 puts of 256 bytes over 100,000 keys, and
// hands a batch to the engine for each 16 entries.
func BenchmarkPut(b *testing.B) {
	b.Run("apply", func(b *testing.B) { benchmarkPut(b, func(e engine.Engine) engine.Engine { return nowhere{e} }) })
	b.Run("badger", func(b *testing.B) { benchmarkPut(b, func(e engine.Engine) engine.Engine { return e }) })
}

func benchmarkPut(b *testing.B, wrap func(engine.Engine) engine.Engine) {
	const perEntry, perBatch, keys = 64, 16, 100_000
	db, err := badger.Open(b.TempDir(), badger.DefaultConfig(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	e := wrap(db)
	view, err := apply.LoadView(e)
	if err != nil {
		b.Fatal(err)
	}
	ks := keyspace.New(keyspace.Config{})
	ks.Begin().Commit(view.Revision)
	ks.Filled()
	state := mvcc.New(ks, e, view)
	m, err := apply.Load(state, view)
	if err != nil {
		b.Fatal(err)
	}
	open := encode(&logpb.Batch{Commands: []*logpb.Command{{Kind: logpb.Command_SESSION_OPEN, Body: encode(&logpb.SessionOpen{Nonce: []byte("n")})}}})
	entries := []*consensuspb.Entry{{Index: 1, Term: 1, Payload: open}}
	value := make([]byte, 256)
	seq := uint64(1)
	for len(entries) <= b.N/perEntry {
		batch := &logpb.Batch{Session: 1, FirstSeq: seq, Acked: seq - 1}
		for range perEntry {
			key := fmt.Sprintf("key-%08d", (seq*7919)%keys)
			batch.Commands = append(batch.Commands, &logpb.Command{Kind: logpb.Command_PUT, Body: encode(&etcdserverpb.PutRequest{Key: []byte(key), Value: value})})
			seq++
		}
		entries = append(entries, &consensuspb.Entry{Index: uint64(len(entries)) + 1, Term: 1, Payload: encode(batch)})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for at := 0; at < len(entries); at += perBatch {
		r := &consensuspb.DeliverResponse{Epoch: 1, ClusterId: 7, Entries: entries[at:min(at+perBatch, len(entries))]}
		if _, err := m.Apply(r); err != nil {
			b.Fatal(err)
		}
		state.Publish(m.View())
		t := m.Take()
		if err := e.Commit(t.Position, t.Rows); err != nil {
			b.Fatal(err)
		}
		m.Committed(t)
		state.Commit(t.Position, t.Revision)
	}
}

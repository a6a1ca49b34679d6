package apply_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/keyspace"
	"github.com/quartet-kv/quartet/stored/internal/apply"
	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/engine/badger"
	"github.com/quartet-kv/quartet/stored/internal/engine/memory"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
	"github.com/quartet-kv/quartet/stored/internal/outcome"
	"github.com/quartet-kv/quartet/stored/internal/row"
)

// TestReplayIsDeterministic applies random logs: in one go, and in random
// batches with power cuts and restarts between them, on both engines, with and
// without a filled keyspace. The states and outcomes must be the same.
func TestReplayIsDeterministic(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 8
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			log := randomLog(rand.New(rand.NewPCG(seed, 1)), 300)
			want := replay(t, log, &straight{disk: memory.NewDisk()}, rand.New(rand.NewPCG(seed, 2)))
			compare(t, "memory with power cuts", want, replay(t, log, &cut{disk: memory.NewDisk()}, rand.New(rand.NewPCG(seed, 3))))
			if seed%4 == 0 {
				compare(t, "badger with restarts", want, replay(t, log, &files{dir: t.TempDir()}, rand.New(rand.NewPCG(seed, 4))))
			}
		})
	}
}

// storage is a store's engine from one life to the next.
type storage interface {
	open(t testing.TB) engine.Engine
	// crash ends the life of e.
	crash(t testing.TB, e engine.Engine, r *rand.Rand)
	crashes() bool
}

type straight struct{ disk *memory.Disk }

func (s *straight) open(t testing.TB) engine.Engine             { return mustOpen(t, s.disk) }
func (s *straight) crash(testing.TB, engine.Engine, *rand.Rand) {}
func (s *straight) crashes() bool                               { return false }
func mustOpen(t testing.TB, d *memory.Disk) engine.Engine {
	e, err := d.Open()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// cut loses a random part of what was not synced.
type cut struct{ disk *memory.Disk }

func (s *cut) open(t testing.TB) engine.Engine { return mustOpen(t, s.disk) }
func (s *cut) crash(_ testing.TB, _ engine.Engine, r *rand.Rand) {
	s.disk.PowerCut(func(engine.Row) bool { return r.IntN(2) == 0 })
}
func (s *cut) crashes() bool { return true }

// files loses nothing of what was committed, but knows only what was synced.
type files struct{ dir string }

func (s *files) open(t testing.TB) engine.Engine {
	e, err := badger.Open(s.dir, badger.SmallConfig(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return e
}
func (s *files) crash(t testing.TB, e engine.Engine, _ *rand.Rand) {
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}
func (s *files) crashes() bool { return true }

// summary is what must not depend on how the log was applied.
type summary struct {
	outcomes map[string]string // by session and number
	rows     uint64            // hash of all rows at every revision
	meta     row.Meta
}

func compare(t *testing.T, name string, want, got summary) {
	t.Helper()
	if want.meta != got.meta {
		t.Errorf("%s: meta %+v, want %+v", name, got.meta, want.meta)
	}
	if want.rows != got.rows {
		t.Errorf("%s: rows differ", name)
	}
	for k, w := range want.outcomes {
		if g := got.outcomes[k]; g != w {
			t.Errorf("%s: outcome %s is\n%s, want\n%s", name, k, readable(g), readable(w))
		}
	}
}

// readable shows a transaction's response, which is what differs if anything.
func readable(outcome string) string {
	at := strings.LastIndexByte(outcome, ' ')
	body, _ := hex.DecodeString(outcome[at+1:])
	var m etcdserverpb.TxnResponse
	if proto.Unmarshal(body, &m) != nil {
		return outcome
	}
	return outcome[:at+1] + plain(&m)
}

// replay applies a log in random batches, crashing at random if the storage can.
func replay(t *testing.T, log []*consensuspb.Entry, s storage, r *rand.Rand) summary {
	sum := summary{outcomes: make(map[string]string)}
	var e engine.Engine
	for done := false; !done; {
		e = s.open(t)
		done = life(t, log, e, s.crashes(), r, &sum)
		if !done {
			s.crash(t, e, r)
		}
	}
	sum.rows, sum.meta = digest(t, e)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return sum
}

// life runs one store until the log's end, or a crash.
func life(t *testing.T, log []*consensuspb.Entry, e engine.Engine, crashes bool, r *rand.Rand, sum *summary) (done bool) {
	view, err := apply.LoadView(e)
	if err != nil {
		t.Fatal(err)
	}
	ks := keyspace.New(keyspace.Config{})
	ks.Begin().Commit(view.Revision)
	state := mvcc.New(ks, e, view)
	m, err := apply.Load(state, view)
	if err != nil {
		t.Fatal(err)
	}
	if r.IntN(2) == 0 {
		fill(t, ks, e, view.Stamp)
	}
	var pending []outcome.Effect
	for at := int(view.Log.Index); at < len(log); {
		if crashes && r.IntN(12) == 0 {
			return false
		}
		n := min(1+r.IntN(40), len(log)-at)
		effects, err := m.Apply(&consensuspb.DeliverResponse{Epoch: 1, ClusterId: 7, Term: 1, Entries: log[at : at+n]})
		if err != nil {
			t.Fatal(err)
		}
		at += n
		state.Publish(m.View())
		pending = append(pending, effects.Outcomes...)
		if r.IntN(3) == 0 || at == len(log) {
			b := m.Take()
			if err := e.Commit(b.Position, b.Rows); err != nil {
				t.Fatal(err)
			}
			m.Committed(b)
			state.Commit(b.Position, b.Revision)
			gather(t, pending, sum)
			pending = nil
		}
		if r.IntN(4) == 0 {
			if _, err := e.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return true
}

func fill(t *testing.T, ks *keyspace.Keyspace, e engine.Engine, at engine.Stamp) {
	err := mvcc.EngineAscend(e, nil, nil, at, func(it *keyspace.Item) bool { return ks.Fill([]keyspace.Item{*it}) })
	if err != nil {
		t.Fatal(err)
	}
	ks.Filled()
}

// gather notes how commands ended; one that ends twice must end the same.
func gather(t *testing.T, effects []outcome.Effect, sum *summary) {
	for i := range effects {
		o := &effects[i].Outcome
		if effects[i].Kind != outcome.Decided {
			continue
		}
		body := o.Body
		if o.Lazy != nil {
			var err error
			if body, err = o.Lazy.Build(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		key := fmt.Sprintf("%d/%d", effects[i].Session, o.Seq)
		value := fmt.Sprintf("%d %d %s %x", o.Revision, o.Index, o.Error, body)
		if before, ok := sum.outcomes[key]; ok && before != value {
			t.Errorf("outcome %s is %q, and was %q", key, value, before)
		}
		sum.outcomes[key] = value
	}
}

// digest hashes the keys at every revision, and the history.
func digest(t *testing.T, e engine.Engine) (uint64, row.Meta) {
	if _, err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	view, err := apply.LoadView(e)
	if err != nil {
		t.Fatal(err)
	}
	h := fnv.New64a()
	rows := func(prefix byte, at engine.Stamp) {
		it := e.Iterate(engine.IterOptions{Lower: []byte{prefix}, Upper: []byte{prefix + 1}, At: at})
		defer it.Close()
		for it.Next() {
			fmt.Fprintf(h, "%x=%x@%d\n", it.Row().Key, it.Row().Value, it.Row().Stamp)
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
	}
	for stamp := engine.Stamp(0); stamp <= view.Stamp; stamp += 7 {
		rows(row.PrefixKey, stamp)
	}
	for _, prefix := range []byte{row.PrefixKey, row.PrefixHistory, row.PrefixLease, row.PrefixAttachment} {
		rows(prefix, view.Stamp)
	}
	return h.Sum64(), view.Meta
}

// randomLog is what several sessions might propose, repetitions and gaps
// included.
func randomLog(r *rand.Rand, n int) []*consensuspb.Entry {
	var log []*consensuspb.Entry
	add := func(payload []byte) {
		log = append(log, &consensuspb.Entry{Index: uint64(len(log)) + 1, Term: 1, Payload: payload})
	}
	next := make(map[uint64]uint64)
	var sessions []uint64
	for len(log) < n {
		switch x := r.IntN(40); {
		case x == 0:
			add(nil)
		case x == 1:
			add([]byte{0xff, byte(r.IntN(256))}) // not a batch
		case x < 4 || len(sessions) == 0:
			id := uint64(len(log)) + 1
			add(encode(&logpb.Batch{Commands: []*logpb.Command{{Kind: logpb.Command_SESSION_OPEN, Body: encode(&logpb.SessionOpen{Nonce: []byte{byte(len(sessions))}, Owner: fmt.Sprint(r.IntN(4))})}}}))
			sessions, next[id] = append(sessions, id), 1
		default:
			s := sessions[r.IntN(len(sessions))]
			b := &logpb.Batch{Session: s, FirstSeq: next[s]}
			if x < 8 {
				b.FirstSeq = max(1, next[s]-uint64(r.IntN(3))) + uint64(r.IntN(2))
			}
			for range 1 + r.IntN(6) {
				b.Commands = append(b.Commands, randomCommand(r, len(log)))
			}
			next[s] = max(next[s], b.FirstSeq+uint64(len(b.Commands)))
			add(encode(b))
		}
	}
	return log
}

func encode(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func randomKey(r *rand.Rand) []byte { return []byte(fmt.Sprintf("k%02d", r.IntN(30))) }

func randomPut(r *rand.Rand) *etcdserverpb.PutRequest {
	p := &etcdserverpb.PutRequest{Key: randomKey(r), Value: []byte(fmt.Sprint(r.IntN(1000))), PrevKv: r.IntN(3) == 0}
	switch r.IntN(6) {
	case 0:
		p.Lease = int64(1 + r.IntN(4))
	case 1:
		p.IgnoreLease = true
	case 2:
		p.Value, p.IgnoreValue = nil, true
	}
	return p
}

func randomRange(r *rand.Rand) *etcdserverpb.RangeRequest {
	q := &etcdserverpb.RangeRequest{Key: randomKey(r), Limit: int64(r.IntN(5)), CountOnly: r.IntN(5) == 0, KeysOnly: r.IntN(5) == 0}
	if r.IntN(2) == 0 {
		q.RangeEnd = randomKey(r)
	}
	if r.IntN(3) == 0 {
		q.Revision = int64(r.IntN(60))
	}
	return q
}

func randomTxn(r *rand.Rand, depth int) *etcdserverpb.TxnRequest {
	txn := &etcdserverpb.TxnRequest{}
	for range r.IntN(3) {
		c := &etcdserverpb.Compare{Key: randomKey(r), Target: etcdserverpb.Compare_CompareTarget(r.IntN(5)), Result: etcdserverpb.Compare_CompareResult(r.IntN(4))}
		if r.IntN(3) == 0 {
			c.RangeEnd = randomKey(r)
		}
		txn.Compare = append(txn.Compare, c)
	}
	for range r.IntN(4) {
		txn.Success = append(txn.Success, randomOp(r, depth))
		txn.Failure = append(txn.Failure, randomOp(r, depth))
	}
	return txn
}

func randomOp(r *rand.Rand, depth int) *etcdserverpb.RequestOp {
	switch x := r.IntN(8); {
	case x < 3:
		return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestPut{RequestPut: randomPut(r)}}
	case x < 6:
		return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestRange{RequestRange: randomRange(r)}}
	case x < 7 && depth < 2:
		return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestTxn{RequestTxn: randomTxn(r, depth+1)}}
	default:
		return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestDeleteRange{RequestDeleteRange: randomDelete(r)}}
	}
}

func randomDelete(r *rand.Rand) *etcdserverpb.DeleteRangeRequest {
	d := &etcdserverpb.DeleteRangeRequest{Key: randomKey(r), PrevKv: r.IntN(2) == 0}
	if r.IntN(3) == 0 {
		d.RangeEnd = append(randomKey(r), '0')
	}
	return d
}

func randomCommand(r *rand.Rand, index int) *logpb.Command {
	fence := &logpb.LeaseFence{Id: int64(1 + r.IntN(4)), GrantIndex: uint64(max(0, index-r.IntN(20)))}
	switch x := r.IntN(40); {
	case x < 20:
		return &logpb.Command{Kind: logpb.Command_PUT, Body: encode(randomPut(r))}
	case x < 24:
		return &logpb.Command{Kind: logpb.Command_DELETE_RANGE, Body: encode(randomDelete(r))}
	case x < 32:
		return &logpb.Command{Kind: logpb.Command_TXN, Body: encode(randomTxn(r, 0))}
	case x < 35:
		return &logpb.Command{Kind: logpb.Command_LEASE_GRANT, Body: encode(&etcdserverpb.LeaseGrantRequest{ID: fence.Id, TTL: 5})}
	case x < 37:
		return &logpb.Command{Kind: logpb.Command_LEASE_REVOKE, Body: encode(&etcdserverpb.LeaseRevokeRequest{ID: fence.Id})}
	case x < 38:
		return &logpb.Command{Kind: logpb.Command_LEASE_EXPIRE, Body: encode(&logpb.LeaseExpire{Leases: []*logpb.LeaseFence{fence}})}
	case x < 39:
		return &logpb.Command{Kind: logpb.Command_COMPACT, Body: encode(&etcdserverpb.CompactionRequest{Revision: int64(r.IntN(index + 1))})}
	default:
		return &logpb.Command{Kind: logpb.Command_Kind(r.IntN(14)), Body: []byte{byte(r.IntN(256)), byte(r.IntN(256))}}
	}
}

// TestLargeRevisionHasSeveralHistoryRows: no row grows with what one command
// changes.
func TestLargeRevisionHasSeveralHistoryRows(t *testing.T) {
	w := newWorld(t, true)
	w.append(&logpb.Batch{Commands: []*logpb.Command{{Kind: logpb.Command_SESSION_OPEN, Body: encode(&logpb.SessionOpen{Nonce: []byte("n")})}}})
	w.apply()
	const keys = 2*row.HistoryChangesMax + 10
	for i := range keys {
		w.do(logpb.Command_PUT, &etcdserverpb.PutRequest{Key: fmt.Appendf(nil, "%06d", i)})
	}
	w.do(logpb.Command_DELETE_RANGE, &etcdserverpb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	w.commit()
	v := w.machine.View()
	it := w.engine.Iterate(engine.IterOptions{Lower: row.HistoryKey(v.Revision), Upper: row.HistoryKey(v.Revision + 1), At: v.Stamp})
	defer it.Close()
	rows, deleted := 0, 0
	for ; it.Next(); rows++ {
		h, err := row.DecodeHistory(it.Row().Value)
		if err != nil {
			t.Fatal(err)
		}
		deleted += len(h.Changes)
	}
	if rows != 3 || deleted != keys || v.Keys != 0 || v.LiveBytes != 0 {
		t.Errorf("%d history rows name %d keys of %d; %d keys and %d bytes are left", rows, deleted, keys, v.Keys, v.LiveBytes)
	}
}

// TestSessionsAreBounded: the one that was quiet for the longest time goes.
func TestSessionsAreBounded(t *testing.T) {
	w := newWorld(t, true)
	open := func(i int) {
		w.append(&logpb.Batch{Commands: []*logpb.Command{{Kind: logpb.Command_SESSION_OPEN, Body: encode(&logpb.SessionOpen{Nonce: fmt.Appendf(nil, "%d", i)})}}})
	}
	for i := range 1024 {
		open(i)
	}
	w.apply()
	w.do(logpb.Command_PUT, &etcdserverpb.PutRequest{Key: []byte("k")}) // session 1 is not quiet
	open(1024)
	effects := w.apply()
	if e := effects.Outcomes; len(e) != 2 || e[0].Kind != outcome.Closed || e[0].Session != 2 || e[1].Kind != outcome.Opened {
		t.Errorf("opening one too many: %+v", e)
	}
}

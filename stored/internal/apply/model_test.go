package apply_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
)

// model is the plainest store: the whole key space at every revision.
type model struct {
	revisions []map[string]*mvccpb.KeyValue // by revision
}

func (m *model) put(key, value string) {
	next := maps.Clone(m.revisions[len(m.revisions)-1])
	rev := int64(len(m.revisions))
	kv := &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), CreateRevision: rev, ModRevision: rev, Version: 1}
	if old := next[key]; old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
	}
	next[key] = kv
	m.revisions = append(m.revisions, next)
}

func (m *model) delete(key, end string) {
	next := maps.Clone(m.revisions[len(m.revisions)-1])
	for k := range next {
		if within(k, key, end) {
			delete(next, k)
		}
	}
	if len(next) < len(m.revisions[len(m.revisions)-1]) {
		m.revisions = append(m.revisions, next)
	}
}

func within(k, key, end string) bool {
	switch end {
	case "":
		return k == key
	case "\x00":
		return k >= key
	default:
		return k >= key && k < end
	}
}

// answer is etcd's, by the letter. Items that sort as equal come in any order,
// so a limit is not combined with such a sort by the test.
func (m *model) answer(r *etcdserverpb.RangeRequest) *etcdserverpb.RangeResponse {
	at := int64(len(m.revisions) - 1)
	if r.Revision > 0 {
		at = r.Revision
	}
	resp := &etcdserverpb.RangeResponse{}
	for _, k := range slices.Sorted(maps.Keys(m.revisions[at])) {
		kv := m.revisions[at][k]
		if !within(k, string(r.Key), string(r.RangeEnd)) {
			continue
		}
		resp.Count++
		if r.CountOnly || r.MinModRevision != 0 && kv.ModRevision < r.MinModRevision || r.MaxModRevision != 0 && kv.ModRevision > r.MaxModRevision ||
			r.MinCreateRevision != 0 && kv.CreateRevision < r.MinCreateRevision || r.MaxCreateRevision != 0 && kv.CreateRevision > r.MaxCreateRevision {
			continue
		}
		resp.Kvs = append(resp.Kvs, proto.CloneOf(kv))
	}
	order := map[etcdserverpb.RangeRequest_SortTarget]func(a, b *mvccpb.KeyValue) int{
		etcdserverpb.RangeRequest_KEY:     func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) },
		etcdserverpb.RangeRequest_VERSION: func(a, b *mvccpb.KeyValue) int { return int(a.Version - b.Version) },
		etcdserverpb.RangeRequest_CREATE:  func(a, b *mvccpb.KeyValue) int { return int(a.CreateRevision - b.CreateRevision) },
		etcdserverpb.RangeRequest_MOD:     func(a, b *mvccpb.KeyValue) int { return int(a.ModRevision - b.ModRevision) },
		etcdserverpb.RangeRequest_VALUE:   func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Value, b.Value) },
	}[r.SortTarget]
	slices.SortStableFunc(resp.Kvs, func(a, b *mvccpb.KeyValue) int {
		if r.SortOrder == etcdserverpb.RangeRequest_DESCEND {
			return order(b, a)
		}
		return order(a, b)
	})
	if r.Limit > 0 && int64(len(resp.Kvs)) > r.Limit {
		resp.Kvs, resp.More = resp.Kvs[:r.Limit], true
	}
	for _, kv := range resp.Kvs {
		if r.KeysOnly {
			kv.Value = nil
		}
	}
	return resp
}

// TestRangeIsTheModels checks ranges with every field against the model, at
// every revision, with keys in the keyspace, in the engine, and in both.
func TestRangeIsTheModels(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, rapid.Bool().Draw(rt, "complete"))
		w.append(&logpb.Batch{Commands: []*logpb.Command{{Kind: logpb.Command_SESSION_OPEN, Body: encode(&logpb.SessionOpen{Nonce: []byte("n")})}}})
		w.apply()
		m := &model{revisions: []map[string]*mvccpb.KeyValue{nil, {}}}
		key := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("k%d", rapid.IntRange(0, 12).Draw(t, "k")) })
		end := rapid.OneOf(key, rapid.SampledFrom([]string{"", "\x00", "l", "a"}))
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, v := key.Draw(t, "key"), fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "value"))
				w.do(logpb.Command_PUT, &etcdserverpb.PutRequest{Key: []byte(k), Value: []byte(v)})
				m.put(k, v)
			},
			"delete": func(t *rapid.T) {
				k, e := key.Draw(t, "key"), end.Draw(t, "end")
				w.do(logpb.Command_DELETE_RANGE, &etcdserverpb.DeleteRangeRequest{Key: []byte(k), RangeEnd: []byte(e)})
				m.delete(k, e)
			},
			"commit": func(*rapid.T) { w.commit() },
			"restart": func(t *rapid.T) {
				w.commit()
				if _, err := w.engine.Sync(); err != nil {
					t.Fatal(err)
				}
				if err := w.engine.Close(); err != nil {
					t.Fatal(err)
				}
				w.load()
			},
			"": func(t *rapid.T) {
				r := drawRange(t, key, end, int64(len(m.revisions)-1))
				w.check(t, m, r)
			},
		})
	})
}

func drawRange(t *rapid.T, key, end *rapid.Generator[string], present int64) *etcdserverpb.RangeRequest {
	bound := rapid.Int64Range(0, present)
	r := &etcdserverpb.RangeRequest{
		Key: []byte(key.Draw(t, "key")), RangeEnd: []byte(end.Draw(t, "end")),
		Revision: rapid.SampledFrom([]int64{0, bound.Draw(t, "revision")}).Draw(t, "at"),
		KeysOnly: rapid.Bool().Draw(t, "keysOnly"), CountOnly: rapid.IntRange(0, 4).Draw(t, "countOnly") == 0,
		SortOrder:  etcdserverpb.RangeRequest_SortOrder(rapid.IntRange(0, 2).Draw(t, "order")),
		SortTarget: etcdserverpb.RangeRequest_SortTarget(rapid.IntRange(0, 4).Draw(t, "target")),
	}
	if rapid.Bool().Draw(t, "filtered") {
		r.MinModRevision, r.MaxModRevision = bound.Draw(t, "minMod"), bound.Draw(t, "maxMod")
		r.MinCreateRevision, r.MaxCreateRevision = bound.Draw(t, "minCreate"), bound.Draw(t, "maxCreate")
	}
	// Revisions differ from key to key here, versions and values do not.
	if r.SortTarget != etcdserverpb.RangeRequest_VERSION && r.SortTarget != etcdserverpb.RangeRequest_VALUE {
		r.Limit = rapid.Int64Range(0, 6).Draw(t, "limit")
	}
	return r
}

// check compares an answer with the model's; equal ones of a sort in any order.
func (w *world) check(t *rapid.T, m *model, r *etcdserverpb.RangeRequest) {
	// What is not in memory is waited for, so it must be in the engine.
	w.commit()
	snapshot := w.state.At(context.Background(), r.Revision)
	answer, err := mvcc.Range(snapshot, r, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got etcdserverpb.RangeResponse
	if err := proto.Unmarshal(answer.AppendBody(nil), &got); err != nil {
		t.Fatal(err)
	}
	want := m.answer(r)
	if r.SortTarget == etcdserverpb.RangeRequest_VERSION || r.SortTarget == etcdserverpb.RangeRequest_VALUE {
		inOrder(t, r, got.Kvs)
		byKey := func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) }
		slices.SortFunc(got.Kvs, byKey)
		slices.SortFunc(want.Kvs, byKey)
	}
	if !proto.Equal(&got, want) {
		t.Fatalf("range %v at revision %d:\n got %v\nwant %v", r, snapshot.Revision(), &got, want)
	}
}

func inOrder(t *rapid.T, r *etcdserverpb.RangeRequest, kvs []*mvccpb.KeyValue) {
	for i := 1; i < len(kvs); i++ {
		a, b := kvs[i-1], kvs[i]
		if r.SortOrder == etcdserverpb.RangeRequest_DESCEND {
			a, b = b, a
		}
		if r.SortTarget == etcdserverpb.RangeRequest_VERSION && a.Version > b.Version || r.SortTarget == etcdserverpb.RangeRequest_VALUE && !r.KeysOnly && bytes.Compare(a.Value, b.Value) > 0 {
			t.Fatalf("range %v: %v before %v", r, a, b)
		}
	}
}

// do applies one command of session 1.
func (w *world) do(kind logpb.Command_Kind, m proto.Message) {
	w.next[1]++
	w.append(&logpb.Batch{Session: 1, FirstSeq: w.next[1], Commands: []*logpb.Command{{Kind: kind, Body: encode(m)}}})
	w.apply()
}

package acceptance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"math/rand/v2"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quartet-kv/quartet/deploy/harness"
)

const (
	objectsFull  = 100_000
	objectsShort = 2_000
	objectMin    = 200
	objectMax    = 20_000
	pageSize     = 500 // what kube-apiserver asks for
	updaters     = 32
)

// TestKubernetesShapedLoad does with objects what kube-apiserver does, and asks
// that every target gives the same answers: their digest, with revisions
// relative to the start, is compared between all of them.
func TestKubernetesShapedLoad(t *testing.T) {
	n := objectsShort
	if *fullFlag {
		n = objectsFull
	}
	digests := map[harness.Kind]string{}
	onFresh(t, harness.Options{}, func(t *testing.T, tg *target) {
		k := &kubernetes{t: t, cl: tg.client, ctx: t.Context(), objects: kubernetesObjects(n), digest: sha256.New()}
		k.run()
		digests[tg.Kind()] = hex.EncodeToString(k.digest.Sum(nil))
	})
	for kind, digest := range digests {
		for other, otherDigest := range digests {
			if digest != otherDigest {
				t.Errorf("%s and %s gave different answers: digests %.12s and %.12s", kind, other, digest, otherDigest)
			}
		}
	}
}

type object struct {
	key   string
	value []byte
}

// kubernetesObjects makes n objects, the same on every call: many small, few
// large, as in a real cluster.
func kubernetesObjects(n int) []object {
	rng := rand.New(rand.NewPCG(1, 2))
	kinds := []string{"pods", "events", "configmaps", "secrets", "leases", "services/specs", "apps/deployments"}
	var list []object
	for i := range n {
		share := rng.Float64()
		value := make([]byte, objectMin+int(share*share*share*share*(objectMax-objectMin)))
		for j := range value {
			value[j] = byte(rng.Uint32())
		}
		key := fmt.Sprintf("/registry/%s/ns-%d/object-%d", kinds[i%len(kinds)], i%31, i)
		list = append(list, object{key, value})
	}
	return list
}

type kubernetes struct {
	t       *testing.T
	cl      *clientv3.Client
	ctx     context.Context
	objects []object
	base    int64
	digest  hash.Hash
}

func (k *kubernetes) check(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *kubernetes) record(format string, args ...any) { fmt.Fprintf(k.digest, format+"\n", args...) }

func (k *kubernetes) run() {
	first, err := k.cl.Get(k.ctx, "/registry/")
	k.check(err)
	k.base = first.Header.Revision
	k.load()
	loaded := k.list("/registry/", 0)
	k.update()
	k.list("/registry/", loaded)
	k.list("/registry/pods/", 0)
	k.conflict()
	k.delete()
	k.replay(loaded)
	k.compact(loaded)
}

// load creates the objects, each under the compare that it is not there, many in
// a transaction and one transaction after another, so that revisions agree
// between targets.
func (k *kubernetes) load() {
	const perTxn = 64 // of at most 20 kB: below the size of a request
	for from := 0; from < len(k.objects); from += perTxn {
		var cmps []clientv3.Cmp
		var puts []clientv3.Op
		for _, o := range k.objects[from:min(from+perTxn, len(k.objects))] {
			cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(o.key), "=", 0))
			puts = append(puts, clientv3.OpPut(o.key, string(o.value)))
		}
		resp, err := k.cl.Txn(k.ctx).If(cmps...).Then(puts...).Commit()
		k.check(err)
		if !resp.Succeeded {
			k.t.Fatalf("create of objects from %d: not absent", from)
		}
	}
}

// list pages through a prefix at one revision (0: that of the first page), puts
// what it saw into the digest and returns the revision.
func (k *kubernetes) list(prefix string, rev int64) int64 {
	end := clientv3.GetPrefixRangeEnd(prefix)
	next, seen := prefix, 0
	for {
		resp, err := k.cl.Get(k.ctx, next, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(rev))
		k.check(err)
		if rev == 0 {
			rev = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			mod := kv.ModRevision - k.base
			if kv.Version > 1 {
				mod = 0 // see update
			}
			k.record("%s %d %d %d %x", kv.Key, kv.CreateRevision-k.base, mod, kv.Version, sha256.Sum256(kv.Value))
		}
		k.record("page of %s at %d: %d of %d, more %v", prefix, rev-k.base, len(resp.Kvs), resp.Count, resp.More)
		seen += len(resp.Kvs)
		if !resp.More {
			break
		}
		next = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	count, err := k.cl.Get(k.ctx, prefix, clientv3.WithRange(end), clientv3.WithCountOnly(), clientv3.WithRev(rev))
	k.check(err)
	if count.Count != int64(seen) {
		k.t.Errorf("count of %s at %d: %d, pages held %d", prefix, rev, count.Count, seen)
	}
	return rev
}

// update changes every tenth object from many callers, each under the compare
// of its mod revision. Which caller comes first differs from target to target,
// so the digest takes what does not depend on it.
func (k *kubernetes) update() {
	var wg sync.WaitGroup
	for w := range updaters {
		wg.Go(func() {
			for i := w * 10; i < len(k.objects); i += updaters * 10 {
				k.updateOne(k.objects[i])
			}
		})
	}
	wg.Wait()
	resp, err := k.cl.Get(k.ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	k.check(err)
	k.record("updated: revision %d, %d objects", resp.Header.Revision-k.base, resp.Count)
	for i := 0; i < len(k.objects); i += 10 {
		resp, err := k.cl.Get(k.ctx, k.objects[i].key)
		k.check(err)
		kv := resp.Kvs[0]
		if !bytes.HasSuffix(kv.Value, []byte("updated")) {
			k.t.Errorf("%s was not updated", kv.Key)
		}
		k.record("%s %d %d", kv.Key, kv.CreateRevision-k.base, kv.Version)
	}
}

func (k *kubernetes) updateOne(o object) {
	got, err := k.cl.Get(k.ctx, o.key)
	if err != nil || len(got.Kvs) != 1 {
		k.t.Errorf("read before update of %s: %v, %v", o.key, got, err)
		return
	}
	resp, err := k.cl.Txn(k.ctx).
		If(clientv3.Compare(clientv3.ModRevision(o.key), "=", got.Kvs[0].ModRevision)).
		Then(clientv3.OpPut(o.key, string(o.value)+"updated")).
		Else(clientv3.OpGet(o.key)).Commit()
	if err != nil || !resp.Succeeded {
		k.t.Errorf("update of %s: %v, %v", o.key, resp, err)
	}
}

// conflict updates an object under an old mod revision, which must fail and
// show the present one.
func (k *kubernetes) conflict() {
	o := k.objects[0]
	resp, err := k.cl.Txn(k.ctx).
		If(clientv3.Compare(clientv3.ModRevision(o.key), "=", k.base+1)).
		Then(clientv3.OpPut(o.key, "lost update")).
		Else(clientv3.OpGet(o.key)).Commit()
	k.check(err)
	if resp.Succeeded || len(resp.Responses[0].GetResponseRange().Kvs) != 1 {
		k.t.Errorf("update under an old mod revision: %v", resp)
	}
}

// delete removes every hundredth object, in order.
func (k *kubernetes) delete() {
	for i := 5; i < len(k.objects); i += 100 {
		resp, err := k.cl.Delete(k.ctx, k.objects[i].key, clientv3.WithPrevKV())
		k.check(err)
		k.record("deleted %s at %d: %d", k.objects[i].key, resp.Header.Revision-k.base, resp.PrevKvs[0].ModRevision-k.base)
	}
}

// replay watches from an old revision and checks that applying the events to a
// list at that revision gives the present state.
func (k *kubernetes) replay(from int64) {
	ctx, cancel := context.WithCancel(k.ctx)
	defer cancel()
	now, err := k.cl.Get(k.ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	k.check(err)
	old, err := k.cl.Get(k.ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithRev(from))
	k.check(err)
	state := map[string]int64{}
	for _, kv := range old.Kvs {
		state[string(kv.Key)] = kv.ModRevision
	}
	last := from
	for resp := range k.cl.Watch(ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithRev(from+1), clientv3.WithPrevKV()) {
		k.check(resp.Err())
		for _, ev := range resp.Events {
			key := string(ev.Kv.Key)
			if ev.Kv.ModRevision <= last {
				k.t.Errorf("event at %d after one at %d", ev.Kv.ModRevision, last)
			}
			if ev.PrevKv == nil || ev.PrevKv.ModRevision != state[key] {
				k.t.Errorf("event of %s at %d: prev_kv %v, state is of %d", key, ev.Kv.ModRevision, ev.PrevKv, state[key])
			}
			last = ev.Kv.ModRevision
			state[key] = last
			if ev.Type == clientv3.EventTypeDelete {
				delete(state, key)
			}
		}
		if last >= now.Header.Revision {
			break
		}
	}
	if len(state) != len(now.Kvs) {
		k.t.Errorf("replayed state has %d objects, the store %d", len(state), len(now.Kvs))
	}
	for _, kv := range now.Kvs {
		if state[string(kv.Key)] != kv.ModRevision {
			k.t.Errorf("replayed state has %s at %d, the store at %d", kv.Key, state[string(kv.Key)], kv.ModRevision)
		}
	}
	k.record("replayed to %d", last-k.base)
}

// compact drops what is older than the present, after which the old list can no
// longer be continued.
func (k *kubernetes) compact(old int64) {
	now, err := k.cl.Get(k.ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	k.check(err)
	_, err = k.cl.Compact(k.ctx, now.Header.Revision, clientv3.WithCompactPhysical())
	k.check(err)
	_, err = k.cl.Get(k.ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithRev(old))
	k.record("list of a compacted revision: %v", err)
	after, err := k.cl.Get(k.ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithCountOnly(), clientv3.WithRev(now.Header.Revision))
	k.check(err)
	k.record("objects after compaction: %d", after.Count)
}

package expiry

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The queue against a map: whatever is set, removed and popped, in any order.
func TestQueueAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q Queue[int]
		items := make([]Item[int], 20)
		for i := range items {
			items[i].Value = i
		}
		want := map[int]time.Duration{}
		var now time.Duration
		item := rapid.IntRange(0, len(items)-1)
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				i, due := item.Draw(t, "item"), now+time.Duration(rapid.IntRange(-5, 50).Draw(t, "in"))
				q.Set(&items[i], due)
				want[i] = due
			},
			"remove": func(t *rapid.T) {
				i := item.Draw(t, "item")
				q.Remove(&items[i])
				delete(want, i)
			},
			"clear": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					q.Clear()
					clear(want)
				}
			},
			"pop": func(t *rapid.T) {
				now += time.Duration(rapid.IntRange(0, 10).Draw(t, "later"))
				var last time.Duration = -100
				for it := q.Pop(now); it != nil; it = q.Pop(now) {
					if due, ok := want[it.Value]; !ok || due > now || due != it.Due() || due < last || it.Queued() {
						t.Fatalf("popped %d at %v, due %v %v after %v", it.Value, now, due, ok, last)
					}
					last = it.Due()
					delete(want, it.Value)
				}
				for i, due := range want {
					if due <= now {
						t.Fatalf("item %d was due at %v, it is %v", i, due, now)
					}
				}
			},
			"": func(t *rapid.T) {
				if q.Len() != len(want) {
					t.Fatalf("%d items, want %d", q.Len(), len(want))
				}
				sorted := q.Sorted(cmp.Compare[int])
				if !slices.IsSortedFunc(sorted, func(a, b *Item[int]) int {
					return cmp.Or(cmp.Compare(want[a.Value], want[b.Value]), cmp.Compare(a.Value, b.Value))
				}) {
					t.Fatal("not sorted")
				}
			},
		})
	})
}

func BenchmarkPostpone(b *testing.B) {
	var q Queue[int]
	items := make([]Item[int], 100_000)
	for i := range items {
		q.Set(&items[i], time.Duration(i))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		q.Set(&items[i%len(items)], time.Duration(len(items)+i))
		i++
	}
}

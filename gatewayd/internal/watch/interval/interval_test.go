package interval_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/quartet-kv/quartet/gatewayd/internal/watch/interval"
)

type span struct{ lo, hi string }

func (s span) holds(p string) bool { return s.lo <= p && (s.hi == "" || p < s.hi) }

func TestStabFindsWhatAScanFinds(t *testing.T) {
	point := rapid.StringOfN(rapid.RuneFrom([]rune("abc")), 0, 3, -1)
	rapid.Check(t, func(t *rapid.T) {
		var tree interval.Tree[span]
		model := make(map[span]bool)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			s := span{point.Draw(t, "lo"), point.Draw(t, "hi")}
			if rapid.IntRange(0, 3).Draw(t, "op") == 0 {
				if got := tree.Delete(s.lo, s.hi); got != model[s] {
					t.Fatalf("Delete(%q) = %v, want %v", s, got, model[s])
				}
				delete(model, s)
			} else {
				tree.Set(s.lo, s.hi, s)
				model[s] = true
			}
			if _, ok := tree.Get(s.lo, s.hi); ok != model[s] || tree.Len() != len(model) {
				t.Fatalf("after %q: there %v, length %d; want %v, %d", s, ok, tree.Len(), model[s], len(model))
			}
			p := point.Draw(t, "point")
			var got, want []string
			tree.Stab([]byte(p), func(s span) { got = append(got, fmt.Sprintf("%q", s)) })
			for s := range model {
				if s.holds(p) {
					want = append(want, fmt.Sprintf("%q", s))
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("Stab(%q) = %v, want %v", p, got, want)
			}
		}
	})
}

func TestSetReplacesTheValueOfTheSameInterval(t *testing.T) {
	var tree interval.Tree[int]
	tree.Set("a", "b", 1)
	tree.Set("a", "b", 2)
	if v, _ := tree.Get("a", "b"); v != 2 || tree.Len() != 1 {
		t.Fatalf("value %d, length %d", v, tree.Len())
	}
}

func BenchmarkStabAmong10000Prefixes(b *testing.B) {
	var tree interval.Tree[int]
	points := make([][]byte, 10_000)
	for i := range points {
		lo := fmt.Sprintf("/registry/%05d/", i*7919%10_000)
		tree.Set(lo, lo[:len(lo)-1]+"0", i)
		points[i] = []byte(lo + "object")
	}
	b.ReportAllocs()
	hits := 0
	for i := 0; b.Loop(); i++ {
		tree.Stab(points[i%len(points)], func(int) { hits++ })
	}
	if hits == 0 {
		b.Fatal("nothing was found")
	}
}

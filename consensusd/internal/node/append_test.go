package node

import (
	"fmt"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

func TestOverlayTakesTheNewer(t *testing.T) {
	seq := func(term uint64, from, to uint64) (out []*raftpb.Entry) {
		for i := from; i <= to; i++ {
			out = append(out, &raftpb.Entry{Index: new(i), Term: new(term)})
		}
		return out
	}
	show := func(entries []*raftpb.Entry) (s string) {
		for _, e := range entries {
			s += fmt.Sprintf("%d@%d ", e.GetIndex(), e.GetTerm())
		}
		return s
	}
	for _, c := range []struct {
		a, b []*raftpb.Entry
		want string
	}{
		{seq(1, 4, 6), seq(2, 7, 8), "4@1 5@1 6@1 7@2 8@2 "},
		{seq(1, 4, 6), seq(2, 5, 5), "4@1 5@2 "},
		{seq(1, 4, 6), seq(2, 3, 4), "3@2 4@2 "},
		{nil, seq(2, 3, 4), "3@2 4@2 "},
		{seq(1, 4, 6), nil, "4@1 5@1 6@1 "},
	} {
		given := show(c.b)
		got := overlay(overlay(nil, c.a), c.b)
		if show(got) != c.want {
			t.Errorf("%s+ %s= %s, want %s", show(c.a), show(c.b), show(got), c.want)
		}
		if show(c.b) != given {
			t.Errorf("the newer entries became %s", show(c.b))
		}
	}
}

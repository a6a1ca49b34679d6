package members_test

import (
	"testing"

	"github.com/quartet-kv/quartet/gatewayd/internal/members"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/cluster"
)

func view(names ...string) cluster.View {
	var v cluster.View
	for i, name := range names {
		v.Members = append(v.Members, cluster.Member{Member: &consensuspb.Member{Id: uint64(0xa0 + i), Name: name}})
	}
	return v
}

func TestChooseMember(t *testing.T) {
	three := view("m1", "m2", "m3")
	speaking := func(pairs ...any) (all []*storepb.Gateway) {
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, &storepb.Gateway{Name: pairs[i].(string), Member: uint64(pairs[i+1].(int))})
		}
		return all
	}
	for _, c := range []struct {
		name     string
		gateways []*storepb.Gateway
		self     string
		wanted   string
		want     uint64
	}{
		{"by name", nil, "g", "m2", 0xa1},
		{"by id", nil, "g", "a2", 0xa2},
		{"the only one without", speaking("g1", 0xa0, "g2", 0xa2), "g9", "", 0xa1},
		{"the least covered", speaking("g1", 0xa0, "g2", 0xa0, "g3", 0xa1, "g4", 0xa1, "g5", 0xa2), "g9", "", 0xa2},
		{"itself does not count", speaking("g1", 0xa0, "g2", 0xa1, "g3", 0xa2), "g3", "", 0xa2},
		{"numbered names spread", nil, "gateway-1", "", 0xa0},
		{"numbered names spread", nil, "gateway-2", "", 0xa1},
		{"numbered names spread", nil, "gateway-3", "", 0xa2},
		{"numbered names spread", nil, "gateway-4", "", 0xa0},
		{"among the least covered only", speaking("g1", 0xa0), "gateway-2", "", 0xa2},
		{"a member that left does not count", speaking("g1", 0xff, "g2", 0xa1, "g3", 0xa2), "x1", "", 0xa0},
	} {
		got, err := members.Choose(three, c.gateways, c.self, c.wanted)
		if err != nil || got != c.want {
			t.Errorf("%s: %x %v, want %x", c.name, got, err, c.want)
		}
	}
	first, _ := members.Choose(three, nil, "some name", "")
	if again, _ := members.Choose(three, nil, "some name", ""); again != first {
		t.Error("a second start chooses another member")
	}
	if _, err := members.Choose(three, nil, "g", "m4"); err == nil {
		t.Error("a member that is not there was chosen")
	}
	if _, err := members.Choose(cluster.View{}, nil, "g", ""); err == nil {
		t.Error("chosen from no members")
	}
}

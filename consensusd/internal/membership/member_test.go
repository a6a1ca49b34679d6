package membership

import (
	"strings"
	"testing"

	"github.com/quartet-kv/quartet/proto/consensuspb"
)

func TestIDsAreEtcds(t *testing.T) {
	// What a default single etcd calls itself.
	member := MemberID([]string{"http://localhost:2380"}, "etcd-cluster")
	if member != 0x8e9e05c52164694d {
		t.Errorf("member id %x", member)
	}
	if cluster := ClusterID([]uint64{member}); cluster != 0xcdf818194e3a8c32 {
		t.Errorf("cluster id %x", cluster)
	}
}

func TestIDsIgnoreOrder(t *testing.T) {
	if MemberID([]string{"http://a:1", "http://b:1"}, "t") != MemberID([]string{"http://b:1", "http://a:1"}, "t") {
		t.Error("the order of peer URLs changed the member's id")
	}
	if ClusterID([]uint64{1, 2}) != ClusterID([]uint64{2, 1}) {
		t.Error("the order of members changed the cluster's id")
	}
}

func TestPeerAddress(t *testing.T) {
	for peer, want := range map[string]string{
		"http://127.0.0.1:2380": "127.0.0.1:2380",
		"m1":                    "m1",
		"unix:///run/m1":        "unix:/run/m1",
		"http://":               "",
	} {
		got, err := PeerAddress(&consensuspb.Member{PeerUrls: []string{peer}})
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", peer, got, err, want)
		}
	}
}

func TestResolveReportsEveryFault(t *testing.T) {
	s := Static{Members: []*consensuspb.Member{
		{Name: "a", PeerUrls: []string{"http://h:1"}},
		{Name: "a", PeerUrls: []string{"http://h:1"}},
		{Name: "b"},
	}}
	_, err := s.Resolve("c")
	for _, want := range []string{`two members are named "a"`, "peer URLs of another", "b has no peer URL", `"c", is not in`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestReaddressKeepsIdentity(t *testing.T) {
	l := List{}.With(&consensuspb.Member{Id: 2, Name: "b", StoreAddress: "old"}).With(&consensuspb.Member{Id: 1, Name: "a"})
	got := l.Readdress([]*consensuspb.Member{{Id: 2, Name: "other", StoreAddress: "new"}, {Id: 9, StoreAddress: "x"}})
	if len(got) != 2 || got.Find(2).Name != "b" || got.Find(2).StoreAddress != "new" || l.Find(2).StoreAddress != "old" {
		t.Errorf("got %v from %v", got, l)
	}
}

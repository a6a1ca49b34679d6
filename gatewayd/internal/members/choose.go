package members

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/cluster"
)

// Choose finds the member that a gateway speaks for: the one wanted, by name or
// by id in hex, or else the one that the fewest other gateways speak for. Among
// equals the gateway's own name decides, so that gateways that start together
// spread (numbered names evenly), and one that starts again chooses as before.
func Choose(v cluster.View, gateways []*storepb.Gateway, name, wanted string) (uint64, error) {
	if len(v.Members) == 0 {
		return 0, fmt.Errorf("the cluster has no members yet")
	}
	if wanted != "" {
		return find(v, wanted)
	}
	speakers := make(map[uint64]int)
	for _, g := range gateways {
		if g.Name != name {
			speakers[g.Member]++
		}
	}
	var least []uint64
	for _, m := range v.Members {
		switch {
		case len(least) == 0 || speakers[m.Id] < speakers[least[0]]:
			least = []uint64{m.Id}
		case speakers[m.Id] == speakers[least[0]]:
			least = append(least, m.Id)
		}
	}
	return least[ordinal(name)%uint64(len(least))], nil
}

// ordinal is the number that a name ends with, less one; any number for a name
// without.
func ordinal(name string) uint64 {
	digits := name[len(strings.TrimRight(name, "0123456789")):]
	if n, err := strconv.ParseUint(digits, 10, 64); err == nil && n > 0 {
		return n - 1
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}

func find(v cluster.View, wanted string) (uint64, error) {
	id, hexErr := strconv.ParseUint(wanted, 16, 64)
	for _, m := range v.Members {
		if m.Name == wanted || hexErr == nil && m.Id == id {
			return m.Id, nil
		}
	}
	return 0, fmt.Errorf("member %q is not in the cluster", wanted)
}

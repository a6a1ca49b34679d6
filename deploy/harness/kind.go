package harness

import (
	"fmt"
	"slices"
	"strings"
)

// Kind names a composition of Quartet or a version of etcd.
type Kind string

// The kinds of cluster that Start knows.
const (
	Up      Kind = "up"
	Compact Kind = "compact"
	Split   Kind = "split"
	Etcd37  Kind = "etcd37"
	Etcd34  Kind = "etcd34"
)

// Kinds lists every kind, Quartet's first.
func Kinds() []Kind { return []Kind{Up, Compact, Split, Etcd37, Etcd34} }

// Quartet reports whether k is a composition of Quartet rather than an etcd.
func (k Kind) Quartet() bool { return k == Up || k == Compact || k == Split }

// ParseKinds reads a comma-separated list of kinds.
func ParseKinds(list string) ([]Kind, error) {
	var kinds []Kind
	for name := range strings.SplitSeq(list, ",") {
		k := Kind(strings.TrimSpace(name))
		if k == "" {
			continue
		}
		if !slices.Contains(Kinds(), k) {
			return nil, fmt.Errorf("unknown kind of cluster %q: one of %v", k, Kinds())
		}
		kinds = append(kinds, k)
	}
	return kinds, nil
}

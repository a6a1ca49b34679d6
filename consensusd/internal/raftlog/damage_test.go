package raftlog

import (
	"path/filepath"
	"slices"
	"testing"
)

// segments are the files of the log, in order.
func segments(t testing.TB, o Options) []string {
	t.Helper()
	names, err := OS{}.List(o.Dir)
	must(t, err)
	seqs, _ := sortNames(names)
	var paths []string
	for _, seq := range slices.Sorted(slices.Values(seqs)) {
		paths = append(paths, filepath.Join(o.Dir, segmentName(seq)))
	}
	return paths
}

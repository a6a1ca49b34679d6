package raftlog

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
)

// segment is one file of the log. first and slots are guarded by Log.mu; the
// file may be read by whoever holds a reference.
type segment struct {
	seq  uint64
	path string
	file File
	refs atomic.Int32
	// headerEnd is where the first batch after the header begins.
	headerEnd int64

	first uint64 // index of slots[0], or of the entry that would be
	slots []slot
}

const (
	segmentSuffix = ".seg"
	tmpSuffix     = ".tmp"
)

func segmentName(seq uint64) string { return fmt.Sprintf("%016x%s", seq, segmentSuffix) }

// segmentSeq reads a file's name.
func segmentSeq(name string) (seq uint64, tmp, ok bool) {
	name, tmp = strings.CutSuffix(name, tmpSuffix)
	hex, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(hex) != 16 {
		return 0, false, false
	}
	seq, err := strconv.ParseUint(hex, 16, 64)
	return seq, tmp, err == nil
}

func newSegment(dir string, seq uint64, f File) *segment {
	s := &segment{seq: seq, path: filepath.Join(dir, segmentName(seq)), file: f}
	s.refs.Store(1)
	return s
}

// next is the index after the segment's last live entry.
func (s *segment) next() uint64 { return s.first + uint64(len(s.slots)) }

func (s *segment) acquire() { s.refs.Add(1) }

// release closes the file when nobody reads it any more.
func (s *segment) release() error {
	if s.refs.Add(-1) > 0 {
		return nil
	}
	return s.file.Close()
}

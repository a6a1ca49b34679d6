package raftlog

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// segments are the files of the log, in order.
func segments(t testing.TB, o Options) []string {
	t.Helper()
	names, err := o.withDefaults().FS.List(o.Dir)
	must(t, err)
	seqs, _ := sortNames(names)
	var paths []string
	for _, seq := range seqs {
		paths = append(paths, filepath.Join(o.Dir, segmentName(seq)))
	}
	return paths
}

// threeBatches writes some, and returns the contents before and after the last
// one, with the disk as a kill leaves it and the last batch's place in it.
func threeBatches(t *testing.T) (d *disk, o Options, before, after content, from, to int64) {
	d = newDisk()
	o = Options{Dir: "d", FS: d, SegmentBytes: 4096}
	l := create(t, o)
	must(t, l.Append(hard(1, 1, 0), ents(1, 3, 1), nil))
	must(t, l.Append(hard(1, 1, 2), nil, nil)) // not synced by itself
	must(t, l.Append(hard(2, 3, 3), ents(4, 5, 2), nil))
	before, from = contentOf(t, l), l.w.pos
	must(t, l.Append(hard(2, 3, 5), ents(5, 9, 2), nil))
	after, to = contentOf(t, l), l.w.pos
	crash(t, l)
	return d, o, before, after, from, to
}

func TestTornWriteAtEveryByteIsCutOff(t *testing.T) {
	d, o, before, after, from, to := threeBatches(t)
	path := segments(t, o)[0]
	for k := from; k <= to; k++ {
		for name, tear := range map[string]func(n *inode){
			"zeros":     func(n *inode) { clear(n.data[k:to]) },
			"short":     func(n *inode) { n.data = n.data[:k:k] },
			"head lost": func(n *inode) { clear(n.data[from : from+(to-k)]) },
			"garbage": func(n *inode) {
				for i := k; i < to; i++ {
					n.data[i] ^= 0xa5
				}
			},
		} {
			torn := d.clone()
			tear(torn.files[path])
			o.FS = torn
			l, err := Open(o)
			if err != nil {
				t.Fatalf("%s at %d: %v", name, k, err)
			}
			// Zeros where padding was are no loss.
			want := before
			if int64(len(torn.files[path].data)) >= to && bytes.Equal(padTo(torn.files[path].data, to), d.files[path].data[:to]) {
				want = after
			}
			if diff := want.diff(contentOf(t, l)); diff != "" {
				t.Fatalf("%s at %d: %s", name, k, diff)
			}
			// What is written next must be found, and nothing of the torn batch.
			must(t, l.Append(nil, ents(want.last+1, want.last+1, 7), nil))
			want = contentOf(t, l)
			crash(t, l)
			if l, err = Open(o); err != nil || want.diff(contentOf(t, l)) != "" {
				t.Fatalf("%s at %d, appended: %v", name, k, err)
			}
			must(t, l.Close())
		}
	}
}

// eachFlip opens the log once for every bit of its segments up to end.
func eachFlip(t *testing.T, d *disk, o Options, end int64, check func(l *Log, err error, path string, bit int64)) {
	for _, path := range segments(t, o) {
		for bit := int64(0); bit < end*8; bit++ {
			flipped := d.clone()
			flipped.files[path].data[bit/8] ^= 1 << (bit % 8)
			o.FS = flipped
			l, err := Open(o)
			check(l, err, path, bit)
			if err == nil {
				must(t, l.Close())
			}
		}
	}
}

func TestBitFlipIsRefusedOrTakenForATornTail(t *testing.T) {
	d, o, before, after, from, to := threeBatches(t)
	eachFlip(t, d, o, to+64, func(l *Log, err error, path string, bit int64) {
		var damage *DamageError
		switch at := bit / 8; {
		case at < from && !errors.As(err, &damage):
			t.Fatalf("bit %d in durable records: %v", bit, err)
		case at < from && (damage.File != path || damage.Offset > at || !strings.Contains(err.Error(), "remove the member")):
			t.Fatalf("bit %d: says %v", bit, err)
		case at >= from && err != nil:
			t.Fatalf("bit %d in the tail: %v", bit, err)
		case at >= from && at < to && before.diff(contentOf(t, l)) != "":
			t.Fatalf("bit %d in the tail: %s", bit, before.diff(contentOf(t, l)))
		case at >= to && after.diff(contentOf(t, l)) != "":
			t.Fatalf("bit %d behind the tail: %s", bit, after.diff(contentOf(t, l)))
		}
	})
}

func TestBitFlipAfterCloseIsRefused(t *testing.T) {
	d, o, _, after, _, to := threeBatches(t)
	l := open(t, o)
	must(t, l.Close())
	eachFlip(t, d, o, to+64, func(l *Log, err error, _ string, bit int64) {
		var damage *DamageError
		if bit/8 < to && !errors.As(err, &damage) {
			t.Fatalf("bit %d: %v", bit, err)
		}
		if bit/8 >= to && (err != nil || after.diff(contentOf(t, l)) != "") {
			t.Fatalf("bit %d in or behind the mark: %v", bit, err)
		}
	})
}

func TestMissingSegmentIsRefused(t *testing.T) {
	d := newDisk()
	o := Options{Dir: "d", FS: d, SegmentBytes: 4096}
	l := create(t, o)
	for i := uint64(1); i <= 300; i++ {
		must(t, l.Append(hard(1, 1, i-1), ents(i, i, 1), nil))
	}
	crash(t, l)
	paths := segments(t, o)
	if len(paths) < 4 {
		t.Fatalf("only %d segments", len(paths))
	}
	for _, path := range paths {
		lost := d.clone()
		delete(lost.files, path)
		o.FS = lost
		_, err := Open(o)
		var damage *DamageError
		if !errors.As(err, &damage) {
			t.Fatalf("without %s: %v", path, err)
		}
	}
}

func TestSwappedSegmentsAreRefused(t *testing.T) {
	d := newDisk()
	o := Options{Dir: "d", FS: d, SegmentBytes: 4096}
	l := create(t, o)
	must(t, l.Append(hard(1, 1, 0), ents(1, 200, 1), nil))
	must(t, l.Append(hard(1, 1, 0), ents(201, 300, 1), nil))
	crash(t, l)
	p := segments(t, o)
	d.files[p[0]], d.files[p[1]] = d.files[p[1]], d.files[p[0]]
	var damage *DamageError
	if _, err := Open(o); !errors.As(err, &damage) {
		t.Fatal(err)
	}
}

func TestFailurePoisonsTheLog(t *testing.T) {
	for _, c := range []struct {
		op    string
		errno syscall.Errno
	}{
		{"write", syscall.EIO}, {"sync", syscall.EIO}, {"write", syscall.ENOSPC},
		{"allocate", syscall.ENOSPC}, {"create", syscall.ENOSPC}, {"rename", syscall.EIO}, {"syncdir", syscall.EIO}, {"truncate", syscall.EIO},
	} {
		t.Run(c.op+" "+c.errno.Error(), func(t *testing.T) {
			d := newDisk()
			o := Options{Dir: "d", FS: d, SegmentBytes: 4096}
			l := create(t, o)
			must(t, l.Append(hard(1, 1, 0), ents(1, 5, 1), nil))
			acked := contentOf(t, l)
			d.fail = func(op, _ string) error {
				if op == c.op {
					return c.errno
				}
				return nil
			}
			var err error
			var i uint64
			for i = 6; err == nil && i < 1000; i++ {
				if err = l.Append(nil, ents(i, i, 1), nil); err == nil {
					acked = contentOf(t, l)
				}
			}
			if !errors.Is(err, c.errno) {
				t.Fatalf("after %d entries: %v", i, err)
			}
			// The disk is well again: too late.
			d.fail = nil
			for _, again := range []error{l.Append(nil, ents(i-1, i-1, 1), nil), l.Truncate(2, nil, nil), l.SetMeta(nil), l.Err(), l.Close()} {
				if !errors.Is(again, c.errno) {
					t.Fatalf("the poisoned log says %v", again)
				}
			}
			got := contentOf(t, open(t, o))
			if got.last < acked.last || acked.diff(content{got.meta, acked.hs, got.snap, got.first, acked.last, got.entries[:acked.last]}) != "" {
				t.Fatalf("recovered up to %d, acknowledged %d", got.last, acked.last)
			}
		})
	}
}

func TestDamageUnderAReaderPoisons(t *testing.T) {
	d := newDisk()
	o := Options{Dir: "d", FS: d, SegmentBytes: 4096, CacheBytes: 1}
	l := create(t, o)
	must(t, l.Append(hard(1, 1, 0), ents(1, 5, 1), nil))
	d.files[segments(t, o)[0]].data[l.mu.index.segments[0].slots[2].off+20] ^= 1
	_, err := l.Entries(3, 4, 100)
	var damage *DamageError
	if !errors.As(err, &damage) || !slices.Contains(segments(t, o), damage.File) {
		t.Fatal(err)
	}
	if err := l.Append(nil, ents(6, 6, 1), nil); !errors.As(err, &damage) {
		t.Fatal(err)
	}
}

// padTo is b as it would be read from a file of at least n bytes.
func padTo(b []byte, n int64) []byte {
	return append(slices.Clone(b[:min(n, int64(len(b)))]), make([]byte, n-min(n, int64(len(b))))...)
}

package raftlog

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
)

// disk is a file system in memory that can lose power: what was not synced is
// then there or not, page by page, and what was not synced of the directory
// is there or not, operation by operation.
type disk struct {
	mu      sync.Mutex
	files   map[string]*inode // as seen
	durable map[string]*inode // as of the last SyncDir
	pending []dirOp
	locked  bool

	// fail, when set, is asked before each operation that changes something.
	fail func(op, path string) error
}

type inode struct{ data, synced []byte }

type dirOp struct {
	op, from, to string
	node         *inode
}

const diskPage = 64

func newDisk() *disk {
	return &disk{files: map[string]*inode{}, durable: map[string]*inode{}}
}

func (d *disk) do(op, path string, f func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		if err := d.fail(op, filepath.Base(path)); err != nil {
			return &fs.PathError{Op: op, Path: path, Err: err}
		}
	}
	return f()
}

func (d *disk) MkdirAll(string) error { return nil }

func (d *disk) List(string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for path := range d.files {
		names = append(names, filepath.Base(path))
	}
	return names, nil
}

func (d *disk) Open(path string) (File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.files[path]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return &handle{d, n, path}, nil
}

func (d *disk) Create(path string) (File, error) {
	n := &inode{}
	err := d.do("create", path, func() error {
		d.files[path] = n
		d.pending = append(d.pending, dirOp{op: "create", to: path, node: n})
		return nil
	})
	return &handle{d, n, path}, err
}

func (d *disk) Rename(from, to string) error {
	return d.do("rename", from, func() error {
		d.files[to] = d.files[from]
		delete(d.files, from)
		d.pending = append(d.pending, dirOp{op: "rename", from: from, to: to, node: d.files[to]})
		return nil
	})
}

func (d *disk) Remove(path string) error {
	return d.do("remove", path, func() error {
		delete(d.files, path)
		d.pending = append(d.pending, dirOp{op: "remove", from: path})
		return nil
	})
}

func (d *disk) SyncDir(string) error {
	return d.do("syncdir", "", func() error {
		d.durable = make(map[string]*inode)
		for path, n := range d.files {
			d.durable[path] = n
		}
		d.pending = nil
		return nil
	})
}

func (d *disk) Lock(string) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locked {
		return nil, errors.New("locked")
	}
	d.locked = true
	return unlock{d}, nil
}

type unlock struct{ d *disk }

func (u unlock) Close() error {
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	u.d.locked = false
	return nil
}

// cut is the power cut; handles from before it must not be used any more.
func (d *disk) cut(r *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, op := range d.pending {
		if r.IntN(2) == 0 {
			continue
		}
		delete(d.durable, op.from)
		if op.to != "" {
			d.durable[op.to] = op.node
		}
	}
	d.pending, d.locked, d.fail = nil, false, nil
	d.files = make(map[string]*inode)
	for _, path := range slices.Sorted(maps.Keys(d.durable)) {
		d.durable[path].cut(r)
		d.files[path] = d.durable[path]
	}
}

func (n *inode) cut(r *rand.Rand) {
	size := len(n.data)
	if len(n.synced) != size && r.IntN(2) == 0 {
		size = len(n.synced)
	}
	out := make([]byte, size)
	for at := 0; at < size; at += diskPage {
		from := n.synced
		if r.IntN(2) == 0 {
			from = n.data
		}
		if at < len(from) {
			copy(out[at:min(at+diskPage, size)], from[at:])
		}
	}
	n.data, n.synced = out, append([]byte(nil), out...)
}

// clone is a copy of the disk as it is seen, all of it durable.
func (d *disk) clone() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := newDisk()
	for path, n := range d.files {
		c.files[path] = &inode{data: append([]byte(nil), n.data...), synced: append([]byte(nil), n.data...)}
		c.durable[path] = c.files[path]
	}
	return c
}

type handle struct {
	d    *disk
	n    *inode
	path string
}

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if off >= int64(len(h.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	err := h.d.do("write", h.path, func() error {
		h.n.grow(off + int64(len(p)))
		copy(h.n.data[off:], p)
		return nil
	})
	return len(p), err
}

func (n *inode) grow(size int64) {
	if more := size - int64(len(n.data)); more > 0 {
		n.data = append(n.data, make([]byte, more)...)
	}
}

func (h *handle) Sync() error {
	return h.d.do("sync", h.path, func() error {
		h.n.synced = append([]byte(nil), h.n.data...)
		return nil
	})
}

func (h *handle) Size() (int64, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return int64(len(h.n.data)), nil
}

func (h *handle) Truncate(size int64) error {
	return h.d.do("truncate", h.path, func() error {
		h.n.grow(size)
		h.n.data = append([]byte(nil), h.n.data[:size]...)
		return nil
	})
}

func (h *handle) Allocate(size int64) error {
	return h.d.do("allocate", h.path, func() error {
		h.n.grow(size)
		return nil
	})
}

func (h *handle) Close() error { return nil }

package raftlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// FS is what a log needs of a file system. Tests inject faults through it.
type FS interface {
	MkdirAll(dir string) error
	// List returns the names of the files in dir.
	List(dir string) ([]string, error)
	// Open opens an existing file for reading and writing.
	Open(path string) (File, error)
	// Create makes an empty file, in place of one that was there.
	Create(path string) (File, error)
	Rename(from, to string) error
	Remove(path string) error
	// SyncDir makes creations, renames and removals in dir durable.
	SyncDir(dir string) error
	// Lock takes dir for this process until closed; it fails at once when
	// another has it.
	Lock(dir string) (io.Closer, error)
}

// File is an open segment.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes the data durable, and the size as far as reading it back
	// needs (fdatasync).
	Sync() error
	Size() (int64, error)
	// Truncate cuts the file, or extends it with zeros.
	Truncate(size int64) error
	// Allocate reserves space up to size; what was not written reads as zeros.
	Allocate(size int64) error
}

// OS is the operating system's file system.
type OS struct{}

const (
	dirMode  = 0o700
	fileMode = 0o600
	lockName = "LOCK"
)

// MkdirAll implements FS.
func (OS) MkdirAll(dir string) error { return os.MkdirAll(dir, dirMode) }

// List implements FS.
func (OS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// Open implements FS.
func (OS) Open(path string) (File, error) { return osFile(os.OpenFile(path, os.O_RDWR, fileMode)) }

// Create implements FS.
func (OS) Create(path string) (File, error) {
	return osFile(os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode))
}

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements FS.
func (OS) Remove(path string) error { return os.Remove(path) }

// SyncDir implements FS.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock implements FS.
func (OS) Lock(dir string) (io.Closer, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is held by another process: %w", path, err)
	}
	return f, nil
}

type file struct{ *os.File }

func osFile(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return file{f}, nil
}

func (f file) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

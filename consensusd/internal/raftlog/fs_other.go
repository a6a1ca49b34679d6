//go:build !linux

package raftlog

func (f file) Allocate(size int64) error { return f.Truncate(size) }

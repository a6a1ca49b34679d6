//go:build unix

package badger

import (
	"os"
	"syscall"
)

// occupied is what a file takes on disk: write-ahead files are sparse.
func occupied(info os.FileInfo) int64 {
	const blockBytes = 512
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * blockBytes
	}
	return info.Size()
}

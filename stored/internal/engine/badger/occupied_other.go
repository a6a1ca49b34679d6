//go:build !unix

package badger

import "os"

// occupied is what a file takes on disk.
func occupied(info os.FileInfo) int64 { return info.Size() }

package badger

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// Badger's write-ahead file of a memtable, as its memtable.go writes it: a
// head of walHeadBytes, then entries of
//
//	meta, user meta, uvarint key bytes, uvarint value bytes, uvarint expiry, key, value, crc32c
//
// and zeros. The file is mapped at twice a memtable's size.
const (
	walExtension    = ".mem"
	walHeadBytes    = 20
	walKeyBytesMax  = 1 << 16
	walEntryBufSize = 1 << 20
)

// walScan knows how far each write-ahead file is intact.
type walScan struct {
	intact map[string]int64
	body   []byte
}

// walFiles lists the write-ahead files of dir, oldest first.
func walFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("badger: list directory: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), walExtension) {
			names = append(names, entry.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// scan extends what is known of f to its last intact entry. The file may be
// written to meanwhile: what a Commit that returned has written is complete.
func (w *walScan) scan(f *os.File, name string) (int64, error) {
	from := max(w.intact[name], walHeadBytes)
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return 0, fmt.Errorf("badger: seek in %s: %w", name, err)
	}
	r := bufio.NewReaderSize(f, walEntryBufSize)
	for {
		n, err := w.entry(r)
		if err != nil {
			return 0, fmt.Errorf("badger: read %s: %w", name, err)
		}
		if n == 0 {
			break
		}
		from += int64(n)
	}
	if w.intact == nil {
		w.intact = make(map[string]int64)
	}
	w.intact[name] = from
	return from, nil
}

// entry reads one entry and returns its length, 0 if it is not intact.
func (w *walScan) entry(r *bufio.Reader) (int, error) {
	const headMax = 2 + 3*binary.MaxVarintLen64
	head, err := r.Peek(headMax)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if len(head) < 2 {
		return 0, nil
	}
	at := 2
	var fields [3]uint64
	for i := range fields {
		v, n := binary.Uvarint(head[at:])
		if n <= 0 {
			return 0, nil
		}
		fields[i] = v
		at += n
	}
	key, value := fields[0], fields[1]
	if key == 0 || key > walKeyBytesMax || value > valueLogThreshold {
		return 0, nil
	}
	n := at + int(key) + int(value)
	if cap(w.body) < n+crc32.Size {
		w.body = make([]byte, n+crc32.Size)
	}
	body := w.body[:n+crc32.Size]
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, nil
		}
		return 0, err
	}
	if binary.BigEndian.Uint32(body[n:]) != crc32.Checksum(body[:n], castagnoli()) {
		return 0, nil
	}
	return len(body), nil
}

// removeEmpty removes write-ahead files without a byte.
func removeEmpty(dir string) error {
	names, err := walFiles(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		info, err := os.Stat(filepath.Join(dir, name))
		if err == nil && info.Size() == 0 {
			err = os.Remove(filepath.Join(dir, name))
		}
		if err != nil {
			return fmt.Errorf("badger: remove empty write-ahead file: %w", err)
		}
	}
	return nil
}

// cutFiles cuts each write-ahead file of dir behind its last intact entry,
// which Badger would do too, but not with any bytes that may stand there. It
// refuses a directory in which one is not intact as far as the last Sync made
// it durable, and returns those of the marker that are there; one that is gone
// has become a table.
func (m *marker) cutFiles(dir string) ([]markerFile, error) {
	names, err := walFiles(dir)
	if err != nil {
		return nil, err
	}
	synced := make(map[string]markerFile, len(m.Files))
	for _, file := range m.Files {
		synced[file.Name] = file
	}
	var there []markerFile
	for _, name := range names {
		file, known := synced[name]
		intact, err := intactBytes(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if intact < file.Bytes {
			return nil, fmt.Errorf("badger: %s is intact for %d of %d synced bytes: %w", name, intact, file.Bytes, engine.ErrCorrupt)
		}
		if err := os.Truncate(filepath.Join(dir, name), intact); err != nil {
			return nil, fmt.Errorf("badger: cut write-ahead file: %w", err)
		}
		if known {
			there = append(there, file)
		}
	}
	return there, nil
}

// intactBytes is how far a write-ahead file is intact.
func intactBytes(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("badger: open write-ahead file: %w", err)
	}
	var w walScan
	intact, err := w.scan(f, filepath.Base(path))
	return intact, errors.Join(err, f.Close())
}

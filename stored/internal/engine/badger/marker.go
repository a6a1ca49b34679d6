package badger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

const (
	markerName    = "SYNCED"
	markerVersion = 1
)

// marker is the file SYNCED: one line of JSON and one with its crc32c in hex,
// so that an operator can read it.
type marker struct {
	Version  int
	Position engine.Position
	Floor    engine.Stamp
	Files    []markerFile
}

// markerFile is how far a write-ahead file is durable and intact.
type markerFile struct {
	Name  string
	Bytes int64
}

// readMarker returns the marker of dir; the zero one if there was no Sync.
func readMarker(dir string) (*marker, error) {
	raw, err := os.ReadFile(filepath.Join(dir, markerName))
	if errors.Is(err, fs.ErrNotExist) {
		return &marker{Version: markerVersion}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("badger: read marker: %w", err)
	}
	line, sum, ok := bytes.Cut(raw, []byte{'\n'})
	if !ok || string(sum) != markerSum(line) {
		return nil, fmt.Errorf("badger: checksum of %s: %w", markerName, engine.ErrCorrupt)
	}
	m := &marker{}
	if err := json.Unmarshal(line, m); err != nil {
		return nil, fmt.Errorf("badger: %s: %w: %w", markerName, err, engine.ErrCorrupt)
	}
	if m.Version != markerVersion {
		return nil, fmt.Errorf("badger: %s is of version %d, this program knows %d", markerName, m.Version, markerVersion)
	}
	return m, nil
}

func markerSum(line []byte) string {
	return fmt.Sprintf("%08x\n", crc32.Checksum(line, castagnoli()))
}

// writeMarker replaces the marker of the engine's directory for good.
func (e *Engine) writeMarker(m *marker) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	name := filepath.Join(e.dir, markerName)
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(string(line) + "\n" + markerSum(line))
	if err == nil {
		err = e.fsync(f)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	return e.syncDir()
}

func (e *Engine) syncDir() error {
	d, err := os.Open(e.dir)
	if err != nil {
		return err
	}
	return errors.Join(e.fsync(d), d.Close())
}

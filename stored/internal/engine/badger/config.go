package badger

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// Config is the memory profile. DefaultConfig is right for a member of its
// own; SmallConfig for many stores in one process.
type Config struct {
	// MemtableBytes is how much is gathered in memory before it becomes a
	// table. A memtable takes 1.3 times that, and a reopen replays up to
	// Memtables of them.
	MemtableBytes int64
	// Memtables bounds those waiting to become tables; commits block beyond.
	Memtables int
	// BlockCacheBytes bounds the blocks known to be sound. Blocks are not
	// compressed, so that their bytes are the kernel's page cache, not ours.
	BlockCacheBytes int64
	// Compactors work in the background; at least 3, since one minds level 0
	// and one is needed to rewrite the last level, or purged rows stay for ever.
	Compactors int
}

// Limits of a Config.
const (
	memtableBytesMin = 8 << 20 // a chunk must fit a batch, which is 15 % of it
	memtableBytesMax = 512 << 20
	compactorsMin    = 3
)

// DefaultConfig is the profile of a member's own store.
func DefaultConfig() Config {
	return Config{MemtableBytes: 32 << 20, Memtables: 3, BlockCacheBytes: 32 << 20, Compactors: 3}
}

// SmallConfig is the profile of a store that shares its machine.
func SmallConfig() Config {
	return Config{MemtableBytes: 8 << 20, Memtables: 2, BlockCacheBytes: 8 << 20, Compactors: 3}
}

// Validate reports every violation.
func (c Config) Validate() error {
	var errs []error
	if c.MemtableBytes < memtableBytesMin || c.MemtableBytes > memtableBytesMax {
		errs = append(errs, fmt.Errorf("badger memtable of %d bytes: must be %d to %d", c.MemtableBytes, memtableBytesMin, memtableBytesMax))
	}
	if c.Memtables < 1 {
		errs = append(errs, fmt.Errorf("badger memtables %d: must be at least 1", c.Memtables))
	}
	if c.BlockCacheBytes < 1<<20 {
		errs = append(errs, fmt.Errorf("badger block cache of %d bytes: must be at least 1 MiB", c.BlockCacheBytes))
	}
	if c.Compactors < compactorsMin {
		errs = append(errs, fmt.Errorf("badger compactors %d: must be at least %d, or purged rows are never reclaimed", c.Compactors, compactorsMin))
	}
	return errors.Join(errs...)
}

// options turns a profile into Badger's options. Each departure from its
// defaults answers one of its traps.
func (c Config) options(dir string, log badger.Logger) badger.Options {
	o := badger.DefaultOptions(dir).
		WithLogger(log).
		WithSyncWrites(false). // Sync does it, for many commits at once
		WithMemTableSize(c.MemtableBytes).
		WithNumMemtables(c.Memtables).
		WithNumCompactors(c.Compactors).
		WithBlockCacheSize(c.BlockCacheBytes).
		WithIndexCacheSize(0). // indexes stay mapped; the cache serves encryption only
		WithCompression(options.None).
		// A block is verified whenever it is read from its file. Compressed blocks
		// would be decoded first, and an error there is dropped unseen.
		WithChecksumVerificationMode(options.OnBlockRead).
		// Else replaying an old version ends the process, and conflict sets grow.
		WithDetectConflicts(false).
		WithMetricsEnabled(false). // process-wide variables
		WithNumVersionsToKeep(1).  // below the floor; above it all stay
		WithCompactL0OnClose(false).
		// No value reaches the value log (see chunkBytesMax), whose failed reads
		// are answered with an empty value. Its file is mapped whole, so small.
		WithValueThreshold(valueLogThreshold).
		WithValueLogFileSize(4 << 20)
	o.LmaxCompaction = true
	return o
}

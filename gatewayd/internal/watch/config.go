package watch

import (
	"errors"
	"fmt"
	"time"
)

// Config bounds the service. DefaultConfig has the defaults.
type Config struct {
	// RingBytesMax bounds the recent events kept in memory. Watchers further
	// behind read history from a store. Default 64 MiB.
	RingBytesMax int
	// OutboxBytesMax bounds what waits for one client's stream. A response that
	// is larger goes out alone. Default 2 MiB.
	OutboxBytesMax int
	// HistoryReadersMax bounds the cohorts that catch up at a time. Default 4.
	HistoryReadersMax int
	// HistoryStallMax is how long a store may send nothing before its history
	// is asked for again. Default 3 s.
	HistoryStallMax time.Duration
	// HistoryRetry is the pause after a failed read of history. Default 100 ms.
	HistoryRetry time.Duration
	// ProgressInterval is the time between progress notifications of a watcher
	// that asked for them, plus up to a tenth. Default 10 min, at least 100 ms.
	ProgressInterval time.Duration
	// RequestBytesMax is the largest request that a client may send. A response
	// of this and 512 KiB more is cut in pieces for those who asked. Default
	// 1.5 MiB.
	RequestBytesMax int
}

// Limits that are part of the contract or need no knob.
const (
	// catchUpRevisionsMax bounds the revisions in one response to a watcher
	// that is behind, as etcd does.
	catchUpRevisionsMax = 1000
	// catchUpBytesMax ends such a response early, at the end of a revision.
	catchUpBytesMax = 512 << 10
	// cohortSpread is how far apart, in revisions, watchers may stand to share
	// a reader of history.
	cohortSpread = 1000
	// readRevisionsMax bounds what a cohort reads before cohorts are formed
	// anew.
	readRevisionsMax = 20_000
	// inlineEntriesMax bounds the entries that the hub itself walks to bring a
	// watcher from the ring up to current.
	inlineEntriesMax = 512
	// fragmentOverheadBytes is what etcd adds to its limit of a request.
	fragmentOverheadBytes = 512 << 10
	// tickMax is the pace of the hub's timers.
	tickMax = 100 * time.Millisecond

	progressIntervalMin = 100 * time.Millisecond
)

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		RingBytesMax:      64 << 20,
		OutboxBytesMax:    2 << 20,
		HistoryReadersMax: 4,
		HistoryStallMax:   3 * time.Second,
		HistoryRetry:      100 * time.Millisecond,
		ProgressInterval:  10 * time.Minute,
		RequestBytesMax:   1536 << 10,
	}
}

// Validate returns every violation at once.
func (c Config) Validate() error {
	var all []error
	least := func(name string, value, min int64) {
		if value < min {
			all = append(all, fmt.Errorf("watch: %s is %d, must be at least %d", name, value, min))
		}
	}
	least("ring bytes", int64(c.RingBytesMax), 0)
	least("outbox bytes", int64(c.OutboxBytesMax), 1)
	least("history readers", int64(c.HistoryReadersMax), 1)
	least("request bytes", int64(c.RequestBytesMax), 1)
	if c.HistoryStallMax <= 0 || c.HistoryRetry <= 0 {
		all = append(all, errors.New("watch: history stall and retry must be positive"))
	}
	if c.ProgressInterval < progressIntervalMin {
		all = append(all, fmt.Errorf("watch: progress interval is %v, must be at least %v", c.ProgressInterval, progressIntervalMin))
	}
	return errors.Join(all...)
}

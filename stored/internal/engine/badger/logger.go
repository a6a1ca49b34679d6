package badger

import (
	"fmt"
	"log/slog"
	"strings"
)

// logger passes Badger's words on, each kind one level lower than Badger
// thinks: what it calls information is of use to those who debug it.
type logger struct {
	log *slog.Logger
	// failed hears of background writes that did not work.
	failed func(message string)
}

// fatal are the words with which Badger's background work says that it could
// not write. It retries, with files in an unknown state, or goes on without.
var fatal = []string{"error flushing memtable", "Compact FAILED", "writeRequests:", "Ignoring table"}

// harmless is why a compaction is put off, with the same words.
const harmless = "there is a non-empty level"

func (l logger) Errorf(format string, args ...any) {
	message := l.text(format, args)
	l.log.Error("badger", "err", message)
	l.fail(message)
}

func (l logger) Warningf(format string, args ...any) {
	message := l.text(format, args)
	l.log.Warn("badger", "message", message)
	l.fail(message)
}

func (l logger) Infof(format string, args ...any) {
	l.log.Debug("badger", "message", l.text(format, args))
}

func (l logger) Debugf(string, ...any) {}

func (l logger) text(format string, args []any) string {
	return strings.TrimSpace(fmt.Sprintf(format, args...))
}

func (l logger) fail(message string) {
	if strings.Contains(message, harmless) {
		return
	}
	for _, words := range fatal {
		if strings.Contains(message, words) {
			l.failed(message)
			return
		}
	}
}

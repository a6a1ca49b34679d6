package session

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/cluster"
)

// Config is what a Session needs. Zero limits take their defaults.
type Config struct {
	// Owner is the stable name of who writes. A second session of the same
	// owner closes the first.
	Owner string
	// Member and ClientURLs are a gateway's: the member that it speaks for and
	// where clients reach it. Zero and empty for others.
	Member     uint64
	ClientURLs []string

	// CommandBytesMax is the largest body of a command; default 8 MiB.
	CommandBytesMax int
	// PayloadBytesMax and PayloadCommandsMax bound what is sent as one log
	// entry; a single command may exceed the bytes. Defaults 1 MiB and 2048.
	PayloadBytesMax    int
	PayloadCommandsMax int
	// InflightPayloadsMax bounds the payloads that are sent and not answered:
	// while that many are under way, commands gather. Default 4.
	InflightPayloadsMax int
	// InflightCommandsMax and InflightBytesMax bound the commands that are sent
	// and not answered. Defaults 16384 and 32 MiB.
	InflightCommandsMax int
	InflightBytesMax    int
	// QueueCommandsMax and QueueBytesMax bound the commands that wait to be
	// sent; beyond them Propose refuses. Defaults 65536 and 128 MiB.
	QueueCommandsMax int
	QueueBytesMax    int

	// StallAfter is how long a sent command may be without any outcome before
	// the next store is asked; after three times that the commands are proposed
	// again. Default 1 s.
	StallAfter time.Duration
	// CloseTimeout bounds what Run does after its context ended: waiting for
	// outcomes and closing the session. Default 1 s.
	CloseTimeout time.Duration
}

// Session proposes commands exactly once. Its methods are safe for concurrent
// use.
type Session struct {
	config Config
}

// New returns a Session that is opened by Run. A nil log discards; a nil
// registerer keeps the metrics to itself.
func New(c Config, d *cluster.Directory, log *slog.Logger, metrics prometheus.Registerer) *Session {
	return &Session{config: c}
}

// Run opens the session and carries proposals until ctx ends; then it waits at
// most CloseTimeout for the outcomes that are under way, closes the session and
// returns ctx's error.
func (s *Session) Run(ctx context.Context) error { panic("todo") }

// Propose hands a command to the log and waits for its outcome. It may be
// called before Run. It neither loses a command nor applies it twice; it waits
// through leader changes and dead stores for as long as ctx lasts. It keeps body
// until the command is answered, even beyond its own return: the caller must
// not change it.
//
// Outcomes:
//
//   - outcome and nil: the command was applied.
//   - outcome and an error: it was decided and refused; the error is the status
//     that etcd answers with (errs.FromText of Outcome.Error), and the
//     Outcome's revision and index hold.
//   - nil and ctx's error: nobody knows. A command that was not sent yet is
//     withdrawn; one that was may still be applied, once.
//   - nil and etcd's "request timed out": nobody knows, and nobody will: it
//     was sent, and the outcome is lost (every store that had it restarted, or
//     the session was evicted).
//   - nil and errs.ErrPayloadTooLarge, errs.ErrTooManyRequests (a queue limit)
//     or errs.ErrStopped: it was not sent and never will be.
func (s *Session) Propose(ctx context.Context, kind logpb.Command_Kind, body []byte) (*storepb.Outcome, error) {
	panic("todo")
}

// Attached is the member whose store the outcomes are read from, 0 while there
// is none.
func (s *Session) Attached() uint64 { panic("todo") }

// ID is the id of the session in the log, 0 before it is open. It changes when
// the session was evicted and a new one opened.
func (s *Session) ID() uint64 { panic("todo") }

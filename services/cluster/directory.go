package cluster

import (
	"context"
	"log/slog"
	"time"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/leasepb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/dial"
)

// Config is what a Directory needs.
type Config struct {
	// Seeds are addresses of members' consensusd; one that answers is enough.
	Seeds []string
	// Dialer reaches the seeds and the addresses in the membership.
	Dialer dial.Dialer
	// Log; nil discards.
	Log *slog.Logger
	// ObserveRetryMin and ObserveRetryMax bound the pause before a broken
	// observation is tried again. Defaults 20 ms and 500 ms.
	ObserveRetryMin, ObserveRetryMax time.Duration
}

// Directory knows the members of one cluster and who leads it. Its methods are
// safe for concurrent use and never block, except Run and WaitLeader.
type Directory struct {
	config Config
}

// New returns a Directory that learns nothing before Run.
func New(c Config) *Directory { return &Directory{config: c} }

// Run observes the cluster until ctx ends, and returns ctx's error.
func (d *Directory) Run(ctx context.Context) error { panic("todo") }

// View is the cluster as it is seen now.
func (d *Directory) View() View { panic("todo") }

// Changed is closed when the View changes next. Take the channel before the
// View, so that no change is missed between them.
func (d *Directory) Changed() <-chan struct{} { panic("todo") }

// WaitLeader returns the first View in which a reachable leader is known, or
// ctx's error.
func (d *Directory) WaitLeader(ctx context.Context) (View, error) { panic("todo") }

// Consensus is the client of a member's consensusd. Like Store and Lessor it
// fails only when the member or its address is unknown; whether somebody
// answers there shows in the first call.
func (d *Directory) Consensus(member uint64) (consensuspb.ConsensusClient, error) { panic("todo") }

// Store is the client of a member's stored, on the connection for small and
// prompt messages.
func (d *Directory) Store(member uint64) (storepb.StoreClient, error) { panic("todo") }

// StoreBulk is the client of a member's stored for scans, histories and
// exports, on a connection of its own.
func (d *Directory) StoreBulk(member uint64) (storepb.StoreClient, error) { panic("todo") }

// Lessor is the client of a member's leased.
func (d *Directory) Lessor(member uint64) (leasepb.LessorClient, error) { panic("todo") }

package edge

import (
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/services/cluster"
)

// Directory is who leads, and when that changes.
type Directory interface {
	View() cluster.View
	Changed() <-chan struct{}
}

// Config is what an Edge needs.
type Config struct {
	Identity  Identity
	Directory Directory
	// RequestTimeout bounds each request; ElectionTimeout is the unit of
	// patience with a lost leader.
	RequestTimeout  time.Duration
	ElectionTimeout time.Duration
	Metrics         *Metrics
}

// Edge is shared by all services of a gateway. Its methods are safe for
// concurrent use.
type Edge struct {
	Floor     Floor
	identity  Identity
	prefix    []byte
	config    Config
	streams   streams
	directory Directory
}

// New returns an Edge; Watch must run beside it.
func New(c Config) *Edge {
	return &Edge{identity: c.Identity, prefix: headerPrefix(c.Identity), config: c, directory: c.Directory}
}

// Identity is whom the gateway speaks for.
func (e *Edge) Identity() Identity { return e.identity }

// Limit bounds a request in time.
func (e *Edge) Limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, e.config.RequestTimeout)
}

// leaderless tells whether no leader is known.
func (e *Edge) leaderless() bool { return e.directory.View().Leader == 0 }

// Watch follows the directory until ctx ends, and returns ctx's error.
func (e *Edge) Watch(ctx context.Context) error {
	tick := time.NewTicker(e.config.ElectionTimeout)
	defer tick.Stop()
	leaderless := 0
	for {
		changed := e.directory.Changed()
		e.Floor.RaiseTerm(uint64(e.directory.View().Term))
		select {
		case <-changed:
		case <-tick.C:
			if !e.leaderless() {
				leaderless = 0
				continue
			}
			// Ending a stream costs far more than refusing a call, so streams
			// are given more time.
			if leaderless++; leaderless >= leaderlessTicksMax {
				e.streams.end(rpctypes.ErrGRPCNoLeader, true)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leaderlessTicksMax is the number of election timeouts without a leader after
// which streams that require one are ended.
const leaderlessTicksMax = 3

package consensus

import (
	"context"
	"log/slog"

	"github.com/quartet-kv/quartet/services/cluster"
	"github.com/quartet-kv/quartet/services/logid"
)

// ReadIndexer answers "up to where must a store be before a read that arrives
// now is linearizable?" by asking the leader. One question is in flight at a
// time, and its answer serves every read that arrived before it was asked; reads
// that arrive meanwhile share the next question. A question is asked again,
// afresh, when the leader changes or does not answer within AskTimeout.
type ReadIndexer struct{}

// NewReadIndexer returns a ReadIndexer that asks nothing before Run. A nil log
// discards.
func NewReadIndexer(d *cluster.Directory, log *slog.Logger) *ReadIndexer { return &ReadIndexer{} }

// Run asks until ctx ends, and returns ctx's error.
func (r *ReadIndexer) Run(ctx context.Context) error { panic("todo") }

// Wait returns a position that no write acknowledged before the call exceeds,
// and the leader's term. It waits through leader changes until ctx ends (ctx's
// error) or Run has ended (errs.ErrStopped).
func (r *ReadIndexer) Wait(ctx context.Context) (logid.ID, logid.Term, error) { panic("todo") }

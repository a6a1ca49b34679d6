package apply

import (
	"errors"
	"fmt"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/invariant"
	"github.com/quartet-kv/quartet/services/logid"
	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
	"github.com/quartet-kv/quartet/stored/internal/outcome"
	"github.com/quartet-kv/quartet/stored/internal/row"
)

// rowOverheadBytes is what a row costs in memory beside its bytes.
const rowOverheadBytes = 96

// Machine is the state machine of one store.
type Machine struct {
	state *mvcc.State
	epoch logid.Epoch

	pos      engine.Position // of the command being applied, or the last one
	term     logid.Term      // highest known
	meta     row.Meta
	sessions *sessions
	leases   map[int64]row.Lease // those that were asked for or changed

	open        *Batch   // gathers rows
	uncommitted []*Batch // taken, and not in the engine yet
	effects     *Effects

	// Scratch, reused from command to command.
	payload payload
	put     putRequest
	write   write
}

// Batch is what one commit gives to the engine.
type Batch struct {
	Rows []engine.Row
	// Bytes is about what the rows take.
	Bytes    int
	Position engine.Position
	Revision int64
	// attached are the keys that were attached to leases, for looking up what
	// the engine does not have yet.
	attached map[int64][][]byte
	sessions map[uint64]struct{} // whose rows are due
	revoked  []int64             // leases
}

// Effects are what entries did that others want to know.
type Effects struct {
	Prev, At     logid.ID
	PrevRevision int64
	Revisions    []*buspb.Revision
	// Bytes is about what Revisions take.
	Bytes    int
	Outcomes []outcome.Effect
	Leases   []*storepb.LeaseChange
	// Claimed: the lessor's claim changed.
	Claimed bool
}

// Load returns the machine as its engine stands, and the state that its readers
// read. The keyspace is not filled here.
func Load(state *mvcc.State, view mvcc.View) (*Machine, error) {
	m := &Machine{
		state:    state,
		epoch:    view.Log.Epoch,
		pos:      view.Position,
		term:     view.Term,
		meta:     view.Meta,
		sessions: newSessions(),
		leases:   make(map[int64]row.Lease),
	}
	it := state.Engine.Iterate(engine.IterOptions{Lower: []byte{row.PrefixSession}, Upper: []byte{row.PrefixSession + 1}, At: m.pos.Stamp})
	defer it.Close()
	for it.Next() {
		r := it.Row()
		if len(r.Value) == 0 {
			continue
		}
		s, err := row.DecodeSession(r.Value)
		if err != nil {
			return nil, fmt.Errorf("%w: session %d: %w", engine.ErrCorrupt, row.Number(r.Key), err)
		}
		m.sessions.add(row.Number(r.Key), s)
	}
	m.open = m.newBatch()
	return m, it.Err()
}

// LoadView returns where an engine stands, for Load and mvcc.New.
func LoadView(e engine.Engine) (mvcc.View, error) {
	pos := e.Synced()
	v := mvcc.View{Position: pos, Meta: row.Meta{Revision: mvcc.FirstRevision, Compact: -1}, Term: pos.Log.Term}
	value, _, err := e.Get(row.MetaKey(), pos.Stamp)
	switch {
	case errors.Is(err, engine.ErrNotFound) && pos.Stamp == 0:
		return v, nil
	case err != nil:
		return v, fmt.Errorf("meta row: %w", err)
	}
	if v.Meta, err = row.DecodeMeta(value); err != nil {
		return v, fmt.Errorf("%w: %w", engine.ErrCorrupt, err)
	}
	v.Term = max(v.Term, v.Meta.Term)
	return v, nil
}

// Sessions are those that are open, for the outcome hub of a store that starts.
func (m *Machine) Sessions() []outcome.Effect { return m.sessions.effects() }

// Apply applies one response of Deliver. An error is fatal: the store and the
// log do not fit together, or the engine cannot be read.
func (m *Machine) Apply(r *consensuspb.DeliverResponse) (*Effects, error) {
	if m.pos.Log.Index != 0 && logid.Epoch(r.Epoch) != m.epoch {
		return nil, fmt.Errorf("%w: epoch %d, store has %d", errs.ErrLogMismatch, r.Epoch, m.epoch)
	}
	if m.meta.ClusterID != 0 && r.ClusterId != m.meta.ClusterID {
		return nil, fmt.Errorf("%w: cluster %x, store has %x", errs.ErrLogMismatch, r.ClusterId, m.meta.ClusterID)
	}
	m.epoch, m.meta.ClusterID, m.term = logid.Epoch(r.Epoch), r.ClusterId, max(m.term, logid.Term(r.Term))
	m.effects = &Effects{Prev: m.pos.Log, PrevRevision: m.meta.Revision}
	for _, e := range r.Entries {
		if logid.Index(e.Index) != m.pos.Log.Index+1 {
			return nil, fmt.Errorf("%w: index %d after %d", errs.ErrLogMismatch, e.Index, m.pos.Log.Index)
		}
		m.pos.Log = logid.ID{Epoch: m.epoch, Index: logid.Index(e.Index), Term: logid.Term(e.Term)}
		m.term = max(m.term, m.pos.Log.Term)
		m.meta.Term = max(m.meta.Term, m.pos.Log.Term)
		if err := m.applyEntry(e.Payload); err != nil {
			return nil, fmt.Errorf("apply %s: %w", m.pos.Log, err)
		}
	}
	m.effects.At = m.pos.Log
	m.open.Position, m.open.Revision = m.pos, m.meta.Revision
	m.learn()
	return m.effects, nil
}

// View is the state after what was applied.
func (m *Machine) View() mvcc.View { return mvcc.View{Position: m.pos, Meta: m.meta, Term: m.term} }

// Pending tells how much the open batch holds: bytes, and whether there is
// anything to commit.
func (m *Machine) Pending() (bytes int, any bool) {
	return m.open.Bytes, m.open.Position.Log.Index > m.state.Committed().Log.Index && len(m.uncommitted) == 0 ||
		len(m.uncommitted) > 0 && m.open.Position.Log.Index > m.uncommitted[len(m.uncommitted)-1].Position.Log.Index
}

// Take closes the open batch and hands it out to be committed.
func (m *Machine) Take() *Batch {
	b := m.open
	if len(b.Rows) > 0 || len(b.sessions) > 0 {
		m.finish(b)
	}
	m.uncommitted = append(m.uncommitted, b)
	m.open = m.newBatch()
	return b
}

// Committed says that the oldest batch that was taken is in the engine.
func (m *Machine) Committed(b *Batch) {
	invariant.Check(len(m.uncommitted) > 0 && m.uncommitted[0] == b, "batches committed out of order")
	m.uncommitted = m.uncommitted[1:]
	m.forgetRevoked(b)
}

// finish adds the rows that are written once per batch.
func (m *Machine) finish(b *Batch) {
	for id := range b.sessions {
		value := []byte(nil)
		if s := m.sessions.byID[id]; s != nil {
			value = s.Encode()
		}
		m.row(row.SessionKey(id), value)
	}
	m.row(row.MetaKey(), m.meta.Encode())
}

func (m *Machine) newBatch() *Batch {
	return &Batch{Position: m.pos, Revision: m.meta.Revision, sessions: make(map[uint64]struct{})}
}

// row adds a row at the present stamp; an empty value is a tombstone.
func (m *Machine) row(key, value []byte) {
	m.open.Rows = append(m.open.Rows, engine.Row{Key: key, Value: value, Stamp: m.pos.Stamp})
	m.open.Bytes += len(key) + len(value) + rowOverheadBytes
}

// applyEntry applies one entry's commands.
func (m *Machine) applyEntry(b []byte) error {
	if len(b) == 0 {
		return nil // raft's own
	}
	p := &m.payload
	if err := p.decode(b); err != nil || len(p.commands) == 0 {
		return nil //nolint:nilerr // the same on every store: an entry without commands
	}
	if p.session == 0 {
		m.maybeOpen(p)
		return nil
	}
	s := m.sessions.byID[p.session]
	if s != nil {
		m.effect(outcome.Effect{Kind: outcome.Acked, Session: p.session, Outcome: outcome.Outcome{Seq: min(p.acked, s.Last)}})
	}
	for i := range p.commands {
		seq := p.first + uint64(i)
		s := m.sessions.byID[p.session] // a command may close it
		switch {
		case s == nil:
			m.refuse(p.session, outcome.Outcome{Seq: seq, Error: textUnknownSession})
		case seq <= s.Last:
			// Applied before: a proposer in doubt has proposed it again.
		case seq > s.Last+1:
			m.refuse(p.session, outcome.Outcome{Seq: seq, Fate: storepb.Outcome_GAP})
		default:
			if err := m.applyNext(p.session, s, seq, &p.commands[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// applyNext applies the session's next command.
func (m *Machine) applyNext(id uint64, s *row.Session, seq uint64, c *command) error {
	m.pos.Stamp++
	s.Last, s.Active = seq, uint64(m.pos.Log.Index)
	m.open.sessions[id] = struct{}{}
	r, err := m.dispatch(id, c)
	if err != nil {
		return err
	}
	o := outcome.Outcome{Seq: seq, Revision: m.meta.Revision, Index: uint64(m.pos.Log.Index), Body: r.body, Lazy: r.lazy}
	if r.refused != nil {
		o.Error = errs.Text(r.refused)
	}
	m.effect(outcome.Effect{Kind: outcome.Decided, Session: id, Outcome: o})
	if c.kind == logpb.Command_SESSION_CLOSE {
		m.closeSession(id)
	}
	return nil
}

// result is how a command ended: refused with etcd's error, or done with the
// body of its response, or with one that is built later.
type result struct {
	refused error
	body    []byte
	lazy    outcome.Lazy
}

func refused(err error) (result, error) { return result{refused: err}, nil }

// dispatch applies one command. The error is fatal.
func (m *Machine) dispatch(id uint64, c *command) (result, error) {
	switch c.kind {
	case logpb.Command_PUT:
		return m.applyPut(c.body)
	case logpb.Command_DELETE_RANGE:
		return m.applyDeleteRange(c.body)
	case logpb.Command_TXN:
		return m.applyTxn(c.body)
	case logpb.Command_COMPACT:
		return m.applyCompact(c.body)
	case logpb.Command_LEASE_GRANT:
		return m.applyGrant(c.body)
	case logpb.Command_LEASE_REVOKE:
		return m.applyRevoke(c.body)
	case logpb.Command_LEASE_EXPIRE:
		return m.applyExpire(c.body)
	case logpb.Command_LEASE_CHECKPOINT:
		return m.applyCheckpoint(c.body)
	case logpb.Command_LESSOR_CLAIM:
		return m.applyClaim(c.body)
	case logpb.Command_SESSION_CLOSE:
		return result{}, nil
	default:
		return refused(errUnknownCommand)
	}
}

func (m *Machine) effect(e outcome.Effect) { m.effects.Outcomes = append(m.effects.Outcomes, e) }

func (m *Machine) refuse(session uint64, o outcome.Outcome) {
	o.Revision, o.Index = m.meta.Revision, uint64(m.pos.Log.Index)
	m.effect(outcome.Effect{Kind: outcome.Refused, Session: session, Outcome: o})
}

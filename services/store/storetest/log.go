package storetest

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/services/logid"
)

// Identity of the cluster that a Log speaks for.
const (
	ClusterID = 0xc1
	MemberID  = 0xa1
	Epoch     = 1
)

// Log is a consensusd for stores under test: what is appended is committed. It
// keeps everything. Its term is raised by hand.
type Log struct {
	consensuspb.UnimplementedConsensusServer

	mu struct {
		sync.Mutex
		entries []*consensuspb.Entry
		term    uint64
		publish bool
		hold    bool
		changed chan struct{} // closed and replaced at each change
		synced  logid.ID
		applied logid.ID
	}
	// BatchMax bounds the entries of one response; 0 is no bound.
	BatchMax int
}

// NewLog returns an empty Log in term 1.
func NewLog() *Log {
	l := &Log{}
	l.mu.term = 1
	l.mu.changed = make(chan struct{})
	return l
}

// Append adds an entry and returns its index. A nil payload is an entry of
// raft's own.
func (l *Log) Append(payload []byte) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &consensuspb.Entry{Index: uint64(len(l.mu.entries)) + 1, Term: l.mu.term, Payload: payload}
	l.mu.entries = append(l.mu.entries, e)
	l.changeLocked()
	return e.Index
}

// AppendBatch adds an entry of commands.
func (l *Log) AppendBatch(b *logpb.Batch) uint64 {
	payload, err := proto.Marshal(b)
	if err != nil {
		panic(err) // the message is the test's own
	}
	return l.Append(payload)
}

// SetTerm begins a term.
func (l *Log) SetTerm(term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.term = term
	l.changeLocked()
}

// SetPublish tells the attached stores to publish or not.
func (l *Log) SetPublish(publish bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.publish = publish
	l.changeLocked()
}

// Hold stops delivering, until it is called with false.
func (l *Log) Hold(hold bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.hold = hold
	l.changeLocked()
}

// Last is the last entry's position.
func (l *Log) Last() logid.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.entries) == 0 {
		return logid.ID{}
	}
	e := l.mu.entries[len(l.mu.entries)-1]
	return logid.ID{Epoch: Epoch, Index: logid.Index(e.Index), Term: logid.Term(e.Term)}
}

// Progress is what a store has reported last.
func (l *Log) Progress() (applied, synced logid.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.applied, l.mu.synced
}

// Wait waits for the next change of the log, a store's progress included.
func (l *Log) Wait(ctx context.Context) error {
	l.mu.Lock()
	changed := l.mu.changed
	l.mu.Unlock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Deliver implements consensuspb.ConsensusServer.
func (l *Log) Deliver(g consensuspb.Consensus_DeliverServer) error {
	first, err := g.Recv()
	if err != nil {
		return err
	}
	after := logid.FromProto(first.GetStart().GetAfter())
	if err := l.check(after); err != nil {
		return err
	}
	gone := make(chan error, 1)
	go func() { gone <- l.receive(g) }()
	pos, told := uint64(after.Index), false
	for {
		response, changed := l.next(pos)
		if n := len(response.Entries); n > 0 || !told {
			told = true
			pos += uint64(n)
			if err := g.Send(response); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
			told = false
		case err := <-gone:
			return err
		case <-g.Context().Done():
			return g.Context().Err()
		}
	}
}

func (l *Log) check(after logid.ID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := int(after.Index)
	if i > len(l.mu.entries) || i > 0 && (after.Epoch != Epoch || l.mu.entries[i-1].Term != uint64(after.Term)) {
		return errs.ErrLogMismatch
	}
	return nil
}

func (l *Log) next(pos uint64) (*consensuspb.DeliverResponse, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &consensuspb.DeliverResponse{
		Epoch: Epoch, ClusterId: ClusterID, MemberId: MemberID,
		Commit: uint64(len(l.mu.entries)), Term: l.mu.term, Publish: l.mu.publish,
	}
	if !l.mu.hold {
		r.Entries = l.mu.entries[pos:len(l.mu.entries):len(l.mu.entries)]
		if l.BatchMax > 0 && len(r.Entries) > l.BatchMax {
			r.Entries = r.Entries[:l.BatchMax]
		}
	}
	return r, l.mu.changed
}

func (l *Log) receive(g consensuspb.Consensus_DeliverServer) error {
	for {
		req, err := g.Recv()
		if err != nil {
			return err
		}
		if p := req.Progress; p != nil {
			l.mu.Lock()
			l.mu.applied, l.mu.synced = logid.FromProto(p.Applied), logid.FromProto(p.Synced)
			l.changeLocked()
			l.mu.Unlock()
		}
	}
}

func (l *Log) changeLocked() {
	close(l.mu.changed)
	l.mu.changed = make(chan struct{})
}

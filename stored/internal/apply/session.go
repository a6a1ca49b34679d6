package apply

import (
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/errs"
	"github.com/quartet-kv/quartet/stored/internal/outcome"
	"github.com/quartet-kv/quartet/stored/internal/row"
)

// Limits of sessions. They are part of the function from log to state.
const (
	// sessionsMax bounds the open sessions; opening one more closes the one
	// that was quiet for the longest time.
	sessionsMax = 1024
	// nonceBytesMax and ownerBytesMax bound what an open may say.
	nonceBytesMax = 64
	ownerBytesMax = 4096
)

var textUnknownSession = errs.Text(errs.ErrUnknownSession)

// sessions are those that are open.
type sessions struct {
	byID    map[uint64]*row.Session
	byNonce map[string]uint64
	byOwner map[string]uint64
}

func newSessions() *sessions {
	return &sessions{byID: make(map[uint64]*row.Session), byNonce: make(map[string]uint64), byOwner: make(map[string]uint64)}
}

func (s *sessions) add(id uint64, r row.Session) {
	s.byID[id] = &r
	s.byNonce[string(r.Nonce)] = id
	if r.Owner != "" {
		s.byOwner[r.Owner] = id
	}
}

func (s *sessions) remove(id uint64) {
	r := s.byID[id]
	delete(s.byID, id)
	delete(s.byNonce, string(r.Nonce))
	if s.byOwner[r.Owner] == id {
		delete(s.byOwner, r.Owner)
	}
}

// quietest is the session whose last command is the oldest; of those that are
// equally old, the oldest session.
func (s *sessions) quietest() uint64 {
	var found uint64
	for id, r := range s.byID {
		if found == 0 || r.Active < s.byID[found].Active || r.Active == s.byID[found].Active && id < found {
			found = id
		}
	}
	return found
}

func (s *sessions) effects() []outcome.Effect {
	all := make([]outcome.Effect, 0, len(s.byID))
	for id, r := range s.byID {
		all = append(all, outcome.Effect{Kind: outcome.Opened, Session: id, Nonce: string(r.Nonce), Last: r.Last})
	}
	return all
}

// maybeOpen opens the session that a batch without one asks for, unless its
// nonce has one already. An open that is malformed does nothing.
func (m *Machine) maybeOpen(p *payload) {
	if len(p.commands) != 1 || p.commands[0].kind != logpb.Command_SESSION_OPEN {
		return
	}
	var open logpb.SessionOpen
	if err := proto.Unmarshal(p.commands[0].body, &open); err != nil {
		return
	}
	if len(open.Nonce) == 0 || len(open.Nonce) > nonceBytesMax || len(open.Owner) > ownerBytesMax {
		return
	}
	m.pos.Stamp++
	if _, ok := m.sessions.byNonce[string(open.Nonce)]; ok {
		return
	}
	if id, ok := m.sessions.byOwner[open.Owner]; ok && open.Owner != "" {
		m.closeSession(id)
	}
	for len(m.sessions.byID) >= sessionsMax {
		m.closeSession(m.sessions.quietest())
	}
	id := uint64(m.pos.Log.Index)
	m.sessions.add(id, row.Session{Nonce: open.Nonce, Owner: open.Owner, Member: open.Member, ClientURLs: open.ClientUrls, Active: id})
	m.open.sessions[id] = struct{}{}
	m.effect(outcome.Effect{Kind: outcome.Opened, Session: id, Nonce: string(open.Nonce)})
}

func (m *Machine) closeSession(id uint64) {
	m.sessions.remove(id)
	m.open.sessions[id] = struct{}{}
	m.effect(outcome.Effect{Kind: outcome.Closed, Session: id})
}

// Gateways are the open sessions of those who serve clients.
func (m *Machine) Gateways() map[uint64]row.Session {
	all := make(map[uint64]row.Session)
	for id, s := range m.sessions.byID {
		if len(s.ClientURLs) > 0 {
			all[id] = *s
		}
	}
	return all
}

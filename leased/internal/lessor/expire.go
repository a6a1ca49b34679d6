package lessor

import (
	"errors"

	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/errs"
)

// expirations is what is under way of LEASE_EXPIRE.
type expirations struct{ underWay bool }

// maybeExpire proposes the leases that are due, many at once, one command at a
// time. Each comes due again after retryPause, in case that nothing comes of it.
func (m *machine) maybeExpire() {
	if !m.primary || m.expire.underWay || !m.feed.attached || !m.view.led {
		return
	}
	command := &logpb.LeaseExpire{Claim: m.mine}
	var named []*lease
	for len(named) < expireLeasesMax {
		it := m.due.Pop(m.now)
		if it == nil {
			break
		}
		l := it.Value
		l.expiring = true
		named = append(named, l)
		command.Leases = append(command.Leases, l.fence())
	}
	if len(named) == 0 {
		return
	}
	for _, l := range named {
		m.due.Set(&l.queued, m.now+retryPause)
	}
	m.expire.underWay = true
	m.metrics.Expired.Add(float64(len(named)))
	claim := m.mine
	m.emit(propose{
		kind: logpb.Command_LEASE_EXPIRE,
		body: command,
		done: func(m *machine, _ uint64, err error) {
			if m.mine == claim && m.primary {
				m.onExpired(named, err)
			}
		},
	})
}

// onExpired: what was applied shows in the feed; what was not sent, and only
// that, may be renewed again.
func (m *machine) onExpired(named []*lease, err error) {
	m.expire.underWay = false
	if errors.Is(err, errs.ErrTooManyRequests) || errors.Is(err, errs.ErrPayloadTooLarge) {
		for _, l := range named {
			l.expiring = false
		}
	}
}

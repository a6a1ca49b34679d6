package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/leasepb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/dial"
	"github.com/quartet-kv/quartet/services/errs"
)

// Config is what a Directory needs.
type Config struct {
	// Seeds are addresses of members' consensusd; one that answers is enough.
	Seeds []string
	// ClusterID refuses every other cluster; 0 takes that of the first member
	// that answers.
	ClusterID uint64
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
	log    *slog.Logger
	events chan event

	// now is replaced by Run only; readers take no lock.
	now atomic.Pointer[moment]
}

// moment is a View and what is closed when the next one is there.
type moment struct {
	view    View
	changed chan struct{}
}

// New returns a Directory that learns nothing before Run.
func New(c Config) *Directory {
	if c.ObserveRetryMin <= 0 {
		c.ObserveRetryMin = 20 * time.Millisecond
	}
	if c.ObserveRetryMax < c.ObserveRetryMin {
		c.ObserveRetryMax = max(500*time.Millisecond, c.ObserveRetryMin)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	d := &Directory{config: c, log: c.Log, events: make(chan event)}
	d.now.Store(&moment{changed: make(chan struct{})})
	return d
}

// Run observes the cluster until ctx ends, and returns ctx's error. It is
// called once.
func (d *Directory) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var observers sync.WaitGroup
	defer observers.Wait()
	defer cancel()

	m := newMerge(d.config.ClusterID)
	observe := func(addr string) context.CancelFunc {
		octx, stop := context.WithCancel(ctx)
		observers.Go(func() { d.observe(octx, addr) })
		return stop
	}
	for _, addr := range d.config.Seeds {
		if m.at[addr] == nil {
			m.at[addr] = &observed{stop: observe(addr), seed: true}
		}
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-d.events:
			if err := m.on(e); err != nil {
				d.log.Warn("refused a status", "peer", e.addr, "err", err)
			}
			m.follow(observe)
			d.publish(m.view())
		}
	}
}

// View is the cluster as it is seen now.
func (d *Directory) View() View { return d.now.Load().view }

// Changed is closed when the View changes next. Take the channel before the
// View, so that no change is missed between them.
func (d *Directory) Changed() <-chan struct{} { return d.now.Load().changed }

// WaitLeader returns the first View in which a reachable leader is known, or
// ctx's error.
func (d *Directory) WaitLeader(ctx context.Context) (View, error) {
	for {
		changed := d.Changed()
		if v := d.View(); v.Led() {
			return v, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return d.View(), ctx.Err()
		}
	}
}

func (d *Directory) publish(v View) {
	before := d.now.Load()
	if v.equal(before.view) {
		return
	}
	if v.Leader != before.view.Leader || v.Term != before.view.Term {
		d.log.Debug("leadership", "term", uint64(v.Term), "leader", v.Leader, "reachable", v.Led())
	}
	d.now.Store(&moment{view: v, changed: make(chan struct{})})
	close(before.changed)
}

// Consensus is the client of a member's consensusd. Like Store and Lessor it
// fails only when the member or its address is unknown; whether somebody
// answers there shows in the first call.
func (d *Directory) Consensus(member uint64) (consensuspb.ConsensusClient, error) {
	conn, err := d.dial(member, dial.Control, (*consensuspb.Member).GetConsensusAddress)
	if err != nil {
		return nil, err
	}
	return consensuspb.NewConsensusClient(conn), nil
}

// Store is the client of a member's stored, on the connection for small and
// prompt messages.
func (d *Directory) Store(member uint64) (storepb.StoreClient, error) {
	return d.store(member, dial.Control)
}

// StoreBulk is the client of a member's stored for scans, histories and
// exports, on a connection of its own.
func (d *Directory) StoreBulk(member uint64) (storepb.StoreClient, error) {
	return d.store(member, dial.Bulk)
}

// Lessor is the client of a member's leased.
func (d *Directory) Lessor(member uint64) (leasepb.LessorClient, error) {
	conn, err := d.dial(member, dial.Control, (*consensuspb.Member).GetLeaseAddress)
	if err != nil {
		return nil, err
	}
	return leasepb.NewLessorClient(conn), nil
}

func (d *Directory) store(member uint64, class dial.Class) (storepb.StoreClient, error) {
	conn, err := d.dial(member, class, (*consensuspb.Member).GetStoreAddress)
	if err != nil {
		return nil, err
	}
	return storepb.NewStoreClient(conn), nil
}

func (d *Directory) dial(member uint64, class dial.Class, address func(*consensuspb.Member) string) (grpc.ClientConnInterface, error) {
	m, ok := d.View().Member(member)
	if !ok || address(m.Member) == "" {
		return nil, fmt.Errorf("member %x: %w", member, errs.ErrNotReady)
	}
	return d.config.Dialer.Dial(address(m.Member), class)
}

// event is what an observer saw: a status, or the end of its stream.
type event struct {
	addr   string
	status *consensuspb.Status
}

// observe hands the statuses of one consensusd to Run until ctx ends.
func (d *Directory) observe(ctx context.Context, addr string) {
	pause := d.config.ObserveRetryMin
	for {
		err := d.observeOnce(ctx, addr, func() { pause = d.config.ObserveRetryMin })
		if ctx.Err() != nil {
			return
		}
		d.log.Debug("observation ended", "peer", addr, "err", err)
		select {
		case d.events <- event{addr: addr}:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, d.config.ObserveRetryMax)
	}
}

func (d *Directory) observeOnce(ctx context.Context, addr string, heard func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := d.config.Dialer.Dial(addr, dial.Control)
	if err != nil {
		return err
	}
	stream, err := consensuspb.NewConsensusClient(conn).Observe(ctx, &consensuspb.ObserveRequest{})
	if err != nil {
		return err
	}
	for {
		status, err := stream.Recv()
		if err != nil {
			return err
		}
		heard()
		select {
		case d.events <- event{addr, status}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// errOtherCluster is why a status is refused.
var errOtherCluster = errors.New("cluster: status of another cluster")

// equal tells whether nothing differs that a reader of the View could see.
func (v View) equal(o View) bool {
	return v.ClusterID == o.ClusterID && v.Epoch == o.Epoch && v.Term == o.Term && v.Leader == o.Leader &&
		v.Publisher == o.Publisher && slices.Equal(v.Members, o.Members)
}

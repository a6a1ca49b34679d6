package apply_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/keyspace"
	"github.com/quartet-kv/quartet/stored/internal/apply"
	"github.com/quartet-kv/quartet/stored/internal/engine"
	"github.com/quartet-kv/quartet/stored/internal/engine/memory"
	"github.com/quartet-kv/quartet/stored/internal/kv"
	"github.com/quartet-kv/quartet/stored/internal/mvcc"
	"github.com/quartet-kv/quartet/stored/internal/outcome"
)

// TestScenarios runs testdata/scenarios/*.txt twice: with all keys in the keyspace, and
// with a keyspace that knows nothing but what was not committed. The answers
// must not differ.
func TestScenarios(t *testing.T) {
	for _, complete := range []bool{true, false} {
		t.Run(fmt.Sprintf("complete=%t", complete), func(t *testing.T) {
			datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
				w := newWorld(t, complete)
				datadriven.RunTest(t, path, w.run)
			})
		})
	}
}

// world is one state machine and its engine.
type world struct {
	t        testing.TB
	complete bool
	disk     *memory.Disk
	engine   engine.Engine
	state    *mvcc.State
	machine  *apply.Machine

	log     []*consensuspb.Entry
	session uint64
	next    map[uint64]uint64 // sequence numbers
}

func newWorld(t testing.TB, complete bool) *world {
	w := &world{t: t, complete: complete, disk: memory.NewDisk(), next: make(map[uint64]uint64)}
	w.load()
	return w
}

// load starts the machine on what the disk holds.
func (w *world) load() {
	e, err := w.disk.Open()
	if err != nil {
		w.t.Fatal(err)
	}
	w.engine = e
	view, err := apply.LoadView(e)
	if err != nil {
		w.t.Fatal(err)
	}
	ks := keyspace.New(keyspace.Config{})
	ks.Begin().Commit(view.Revision)
	w.state = mvcc.New(ks, e, view)
	if w.complete {
		err := mvcc.EngineAscend(e, nil, nil, view.Stamp, func(it *keyspace.Item) bool {
			return ks.Fill([]keyspace.Item{*it})
		})
		if err != nil {
			w.t.Fatal(err)
		}
		ks.Filled()
	}
	if w.machine, err = apply.Load(w.state, view); err != nil {
		w.t.Fatal(err)
	}
}

// apply applies the entries of the log from the machine's position on.
func (w *world) apply() *apply.Effects {
	from := w.machine.View().Log.Index
	effects, err := w.machine.Apply(&consensuspb.DeliverResponse{Epoch: 1, ClusterId: 7, Term: 1, Entries: w.log[from:]})
	if err != nil {
		w.t.Fatal(err)
	}
	w.state.Publish(w.machine.View())
	return effects
}

func (w *world) commit() {
	if _, any := w.machine.Pending(); !any {
		return
	}
	b := w.machine.Take()
	if err := w.engine.Commit(b.Position, b.Rows); err != nil {
		w.t.Fatal(err)
	}
	w.machine.Committed(b)
	w.state.Commit(b.Position, b.Revision)
}

func (w *world) append(b *logpb.Batch) {
	payload, err := proto.Marshal(b)
	if err != nil {
		w.t.Fatal(err)
	}
	w.log = append(w.log, &consensuspb.Entry{Index: uint64(len(w.log)) + 1, Term: 1, Payload: payload})
}

// kinds are the commands of scenarios, by name.
var kinds = map[string]struct {
	kind              logpb.Command_Kind
	request, response proto.Message
}{
	"put":        {logpb.Command_PUT, &etcdserverpb.PutRequest{}, &etcdserverpb.PutResponse{}},
	"delete":     {logpb.Command_DELETE_RANGE, &etcdserverpb.DeleteRangeRequest{}, &etcdserverpb.DeleteRangeResponse{}},
	"txn":        {logpb.Command_TXN, &etcdserverpb.TxnRequest{}, &etcdserverpb.TxnResponse{}},
	"compact":    {logpb.Command_COMPACT, &etcdserverpb.CompactionRequest{}, &etcdserverpb.CompactionResponse{}},
	"grant":      {logpb.Command_LEASE_GRANT, &etcdserverpb.LeaseGrantRequest{}, &etcdserverpb.LeaseGrantResponse{}},
	"revoke":     {logpb.Command_LEASE_REVOKE, &etcdserverpb.LeaseRevokeRequest{}, &etcdserverpb.LeaseRevokeResponse{}},
	"expire":     {logpb.Command_LEASE_EXPIRE, &logpb.LeaseExpire{}, &etcdserverpb.LeaseRevokeResponse{}},
	"checkpoint": {logpb.Command_LEASE_CHECKPOINT, &logpb.LeaseCheckpoint{}, &etcdserverpb.LeaseRevokeResponse{}},
	"claim":      {logpb.Command_LESSOR_CLAIM, &logpb.LessorClaim{}, &etcdserverpb.LeaseRevokeResponse{}},
	"close":      {logpb.Command_SESSION_CLOSE, &etcdserverpb.LeaseRevokeResponse{}, &etcdserverpb.LeaseRevokeResponse{}},
	"open":       {logpb.Command_SESSION_OPEN, &logpb.SessionOpen{}, &etcdserverpb.LeaseRevokeResponse{}},
}

// run does one command of a scenario.
func (w *world) run(t *testing.T, d *datadriven.TestData) string {
	w.t = t
	switch d.Cmd {
	case "open":
		return w.open(d)
	case "session":
		maybeScan(t, d, "id", &w.session)
		return ""
	case "raft":
		w.log = append(w.log, &consensuspb.Entry{Index: uint64(len(w.log)) + 1, Term: 1})
		return w.show(w.apply())
	case "batch":
		return w.batch(d)
	case "commit":
		w.commit()
		return ""
	case "restart":
		return w.restart(d)
	case "keys":
		return w.keys()
	default:
		k, ok := kinds[d.Cmd]
		if !ok {
			t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
		}
		w.next[w.session]++
		w.append(&logpb.Batch{Session: w.session, FirstSeq: w.next[w.session], Commands: []*logpb.Command{{Kind: k.kind, Body: w.body(k.request, d.Input)}}})
		return w.show(w.apply(), k.response)
	}
}

func maybeScan(t testing.TB, d *datadriven.TestData, name string, to any) {
	if d.HasArg(name) {
		d.ScanArgs(t.(*testing.T), name, to)
	}
}

func (w *world) body(request proto.Message, text string) []byte {
	request = proto.Clone(request)
	if err := prototext.Unmarshal([]byte(text), request); err != nil {
		w.t.Fatal(err)
	}
	b, err := proto.Marshal(request)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) open(d *datadriven.TestData) string {
	w.append(&logpb.Batch{Commands: []*logpb.Command{{Kind: logpb.Command_SESSION_OPEN, Body: w.body(&logpb.SessionOpen{}, d.Input)}}})
	effects := w.apply()
	for _, e := range effects.Outcomes {
		if e.Kind == outcome.Opened {
			w.session = e.Session
		}
	}
	return w.show(effects)
}

// batch applies one entry of several commands, one per line: its name and body.
func (w *world) batch(d *datadriven.TestData) string {
	b := &logpb.Batch{Session: w.session}
	maybeScan(w.t, d, "first", &b.FirstSeq)
	maybeScan(w.t, d, "session", &b.Session)
	var responses []proto.Message
	for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
		name, text, _ := strings.Cut(line, " ")
		b.Commands = append(b.Commands, &logpb.Command{Kind: kinds[name].kind, Body: w.body(kinds[name].request, text)})
		responses = append(responses, kinds[name].response)
	}
	w.append(b)
	w.next[b.Session] = max(w.next[b.Session], b.FirstSeq+uint64(len(b.Commands))-1)
	return w.show(w.apply(), responses...)
}

// restart cuts the power. What was committed since the last sync survives only
// with survive=true; then the log is applied again.
func (w *world) restart(d *datadriven.TestData) string {
	survive, sync := false, false
	maybeScan(w.t, d, "survive", &survive)
	maybeScan(w.t, d, "sync", &sync)
	w.commit()
	if sync {
		if _, err := w.engine.Sync(); err != nil {
			w.t.Fatal(err)
		}
	}
	w.disk.PowerCut(func(engine.Row) bool { return survive })
	w.load()
	from := w.machine.View()
	w.apply()
	return fmt.Sprintf("replayed from index %d, revision %d\n", from.Log.Index, from.Revision)
}

func (w *world) keys() string {
	w.commit()
	var b strings.Builder
	err := w.state.At(context.Background(), 0).Ascend(nil, nil, 0, func(it *keyspace.Item) bool {
		fmt.Fprintf(&b, "%s = %q create=%d mod=%d version=%d lease=%d\n", it.Key, it.Value, it.Create, it.Mod, it.Version, it.Lease)
		return true
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return b.String()
}

// show prints effects; response i is what the i-th decided outcome's body is.
func (w *world) show(e *apply.Effects, responses ...proto.Message) string {
	var b strings.Builder
	for i := range e.Outcomes {
		o := &e.Outcomes[i]
		switch o.Kind {
		case outcome.Opened:
			fmt.Fprintf(&b, "opened session %d\n", o.Session)
		case outcome.Closed:
			fmt.Fprintf(&b, "closed session %d\n", o.Session)
		case outcome.Refused:
			fmt.Fprintf(&b, "%d: refused %s %s\n", o.Outcome.Seq, o.Outcome.Fate, o.Outcome.Error)
		case outcome.Decided:
			fmt.Fprintf(&b, "%d: revision %d", o.Outcome.Seq, o.Outcome.Revision)
			if o.Outcome.Error != "" {
				fmt.Fprintf(&b, " error %q", o.Outcome.Error)
			} else if len(responses) > 0 {
				fmt.Fprintf(&b, " {%s}", w.response(&o.Outcome, responses[0]))
			}
			b.WriteString("\n")
			responses = responses[min(1, len(responses)):]
		}
	}
	for _, r := range e.Revisions {
		for _, ev := range r.Events {
			fmt.Fprintf(&b, "  %d %s\n", r.Revision, event(w.t, ev.Delete, ev.Kv, ev.PrevKv))
		}
	}
	for _, l := range e.Leases {
		fmt.Fprintf(&b, "  lease %d %s grant=%d ttl=%d remaining=%d\n", l.Id, l.Op, l.GrantIndex, l.Ttl, l.Remaining)
	}
	if e.Claimed {
		v := w.machine.View()
		fmt.Fprintf(&b, "  claim %d by member %d\n", v.Claim, v.ClaimMember)
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

func (w *world) response(o *outcome.Outcome, m proto.Message) string {
	body := o.Body
	if o.Lazy != nil {
		w.commit() // what is read later may have to be read from the engine
		var err error
		if body, err = o.Lazy.Build(context.Background()); err != nil {
			w.t.Fatal(err)
		}
	}
	m = proto.Clone(m)
	if err := proto.Unmarshal(body, m); err != nil {
		w.t.Fatal(err)
	}
	return plain(m)
}

var spaces = regexp.MustCompile(` +`)

// plain is the text form, whose spaces the library varies on purpose.
func plain(m proto.Message) string {
	return spaces.ReplaceAllString(prototext.MarshalOptions{}.Format(m), " ")
}

func event(t testing.TB, deleted bool, encoded, prev []byte) string {
	var b strings.Builder
	b.WriteString(map[bool]string{false: "put", true: "delete"}[deleted])
	for _, e := range [][]byte{encoded, prev} {
		if len(e) == 0 {
			continue
		}
		var m mvccpb.KeyValue
		if err := proto.Unmarshal(e, &m); err != nil {
			t.Fatal(err)
		}
		if it, err := kv.Parse(e); err != nil || string(kv.Encode(&it)) != string(e) {
			t.Fatalf("key-value %x does not survive parsing: %v", e, err)
		}
		fmt.Fprintf(&b, " {%s}", plain(&m))
	}
	return b.String()
}

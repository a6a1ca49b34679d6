package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/errs"
)

// Store is a store under test.
type Store struct {
	Client storepb.StoreClient
	// Restart stops the store and starts it again on what it had kept; nil if
	// it keeps nothing.
	Restart func() storepb.StoreClient
}

// Open starts a store that follows a log; it is stopped with the test.
type Open func(t testing.TB, log *Log) Store

// patience bounds every wait of the suite.
const patience = 60 * time.Second

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *fixture)
	}{
		{"ReadWaitsForItsPosition", readWaitsForItsPosition},
		{"ReadAnswersEachKind", readAnswersEachKind},
		{"LargeAnswersAreAskedOfScan", largeAnswersAreAskedOfScan},
		{"ScanIsOfOneRevision", scanIsOfOneRevision},
		{"ScanLimitsAndCounts", scanLimitsAndCounts},
		{"HistoryTellsEveryEvent", historyTellsEveryEvent},
		{"HistoryShowsDeleteAtCompactRevision", historyShowsDeleteAtCompactRevision},
		{"CompactedIsSaid", compactedIsSaid},
		{"FollowIsGapless", followIsGapless},
		{"FollowFromNowhereStartsNow", followFromNowhereStartsNow},
		{"OutcomesCanBeReadAgain", outcomesCanBeReadAgain},
		{"AckedOutcomesAreForgotten", ackedOutcomesAreForgotten},
		{"UnknownSessionIsSaid", unknownSessionIsSaid},
		{"GapIsSaid", gapIsSaid},
		{"LeasesAreFed", leasesAreFed},
		{"StatusNamesGateways", statusNamesGateways},
		{"RestartLosesNothingApplied", restartLosesNothingApplied},
		{"SyncedIsReported", syncedIsReported},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			log := NewLog()
			log.Append(nil)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			t.Cleanup(cancel)
			f := &fixture{t: t, ctx: ctx, log: log}
			f.store = open(t, log)
			f.session = OpenSession(t, ctx, log, f.store.Client, &logpb.SessionOpen{
				Nonce: []byte("nonce"), Owner: "gateway", Member: 5, ClientUrls: []string{"http://client"},
			})
			c.test(t, f)
		})
	}
}

// fixture is a store with an open session.
type fixture struct {
	t       *testing.T
	ctx     context.Context
	log     *Log
	store   Store
	session *Session
}

// must fails the test on an error.
func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	return must(proto.Marshal(m))(t)
}

// read asks one question at the log's end.
func (f *fixture) read(kind storepb.ReadRequest_Kind, m proto.Message) *storepb.ReadResult {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	stream := must(f.store.Client.Read(ctx))(f.t)
	err := stream.Send(&storepb.ReadBatch{Epoch: Epoch, MinIndex: uint64(f.log.Last().Index), Reads: []*storepb.ReadRequest{{Id: 7, Kind: kind, Body: marshal(f.t, m)}}})
	if err != nil {
		f.t.Fatal(err)
	}
	results := must(stream.Recv())(f.t)
	if len(results.Results) != 1 || results.Results[0].Id != 7 {
		f.t.Fatalf("results %v", results)
	}
	return results.Results[0]
}

func (f *fixture) rangeOf(r *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, *storepb.ReadResult) {
	f.t.Helper()
	result := f.read(storepb.ReadRequest_RANGE, r)
	var response etcdserverpb.RangeResponse
	if err := proto.Unmarshal(result.Body, &response); err != nil {
		f.t.Fatal(err)
	}
	return &response, result
}

// scan gathers a whole scan.
func (f *fixture) scan(req *storepb.ScanRequest, r *etcdserverpb.RangeRequest) (response *etcdserverpb.RangeResponse, chunks int, err error) {
	f.t.Helper()
	req.Range, req.Epoch, req.MinIndex = marshal(f.t, r), Epoch, uint64(f.log.Last().Index)
	stream := must(f.store.Client.Scan(f.ctx, req))(f.t)
	response = &etcdserverpb.RangeResponse{}
	var body []byte
	keys := 0
	for {
		c, err := stream.Recv()
		if err != nil {
			return nil, chunks, err
		}
		chunks++
		body = append(body, c.Kvs...)
		keys += int(c.Keys)
		if !c.Last {
			continue
		}
		if err := proto.Unmarshal(body, response); err != nil {
			f.t.Fatal(err)
		}
		if len(response.Kvs) != keys {
			f.t.Fatalf("chunks say %d keys and hold %d", keys, len(response.Kvs))
		}
		response.More, response.Count = c.More, c.Count
		return response, chunks, nil
	}
}

// history gathers the events of a range as strings.
func (f *fixture) history(req *storepb.HistoryRequest) ([]string, error) {
	f.t.Helper()
	stream := must(f.store.Client.History(f.ctx, req))(f.t)
	var all []string
	through := req.From - 1
	for {
		c, err := stream.Recv()
		if err != nil {
			if isEnd(err) {
				if req.To > 0 && through != req.To {
					f.t.Errorf("history ended at %d, asked to %d", through, req.To)
				}
				return all, nil
			}
			return all, err
		}
		if c.Through <= through {
			f.t.Errorf("through %d after %d", c.Through, through)
		}
		through = c.Through
		for _, r := range c.Revisions {
			all = append(all, describe(f.t, r)...)
		}
	}
}

func describe(t *testing.T, r *buspb.Revision) (all []string) {
	for _, e := range r.Events {
		var now, prev mvccpb.KeyValue
		if err := errors.Join(proto.Unmarshal(e.Kv, &now), proto.Unmarshal(e.PrevKv, &prev)); err != nil {
			t.Fatal(err)
		}
		if now.ModRevision != r.Revision || string(now.Key) != string(e.Key) {
			t.Errorf("event of revision %d has %v", r.Revision, &now)
		}
		kind := "put"
		if e.Delete {
			kind = "del"
		}
		s := fmt.Sprintf("%d %s %s=%s", r.Revision, kind, now.Key, now.Value)
		if len(e.PrevKv) > 0 {
			s += fmt.Sprintf(" was %s@%d", prev.Value, prev.ModRevision)
		}
		all = append(all, s)
	}
	return all
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func isError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// compact proposes a compaction that must succeed.
func (f *fixture) compact(revision int64) {
	f.t.Helper()
	if o := f.session.Do(Command(logpb.Command_COMPACT, &etcdserverpb.CompactionRequest{Revision: revision})); o.Error != "" {
		f.t.Fatalf("compact %d: %s", revision, o.Error)
	}
}

// waitCompacted waits until the space is given up.
func (f *fixture) waitCompacted(revision int64) {
	f.t.Helper()
	must(f.store.Client.WaitCompacted(f.ctx, &storepb.WaitCompactedRequest{CompactRevision: revision}))(f.t)
}

var (
	compactedText  = errs.Text(rpctypes.ErrGRPCCompacted)
	futureText     = errs.Text(rpctypes.ErrGRPCFutureRev)
	unknownSession = errs.Text(errs.ErrUnknownSession)
)

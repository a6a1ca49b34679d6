package consensustest

import (
	"errors"
	"runtime"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quartet-kv/quartet/proto/consensuspb"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/services/errs"
)

func (s *suite) observeAnswersAtOnce() {
	st := s.observe(s.Members[0], func(*consensuspb.Status) bool { return true })
	if st.ClusterId == 0 || st.MemberId == 0 || st.Epoch == 0 {
		s.Errorf("a view without identity: %v", st)
	}
}

func (s *suite) membersAgreeOnTheLeader() {
	lead := s.leader()
	want := s.status(lead)
	if want.Role != consensuspb.Status_LEADER || len(want.Members) != 3 {
		s.Errorf("the leader says %v", want)
	}
	for _, i := range s.others(lead) {
		st := s.observe(s.Members[i], func(st *consensuspb.Status) bool { return st.Leader != 0 })
		if st.Leader != want.MemberId || st.Term != want.Term || st.ClusterId != want.ClusterId || st.Role != consensuspb.Status_FOLLOWER {
			s.Errorf("member %d says %v, the leader %v", i, st, want)
		}
	}
}

func (s *suite) onlyTheLeaderTakes() {
	lead := s.leader()
	for _, i := range s.others(lead) {
		stream, err := s.Members[i].Client.Propose(s.ctx)
		s.must(err)
		_, err = stream.Recv()
		s.wantErr(err, errs.ErrNotLeader)
		_, err = s.Members[i].Client.ReadIndex(s.ctx, &consensuspb.ReadIndexRequest{})
		s.wantErr(err, errs.ErrNotLeader)
	}
	if _, term := s.propose(lead); term != s.status(lead).Term {
		s.Errorf("stream of term %d, member of term %d", term, s.status(lead).Term)
	}
}

func (s *suite) payloadsInOrder() {
	stream, term := s.propose(s.leader())
	want := numbered(300)
	for chunk := range slices.Chunk(want, 7) {
		s.must(send(stream, chunk...))
	}
	for i := range s.Members {
		got := s.attach(i, nil).until(want[len(want)-1])
		if got[0].Index != 1 || !slices.Equal(payloads(got), want) {
			s.Errorf("member %d delivered %q, from index %d", i, payloads(got), got[0].Index)
		}
		if got[len(got)-1].Term != term {
			s.Errorf("an entry of term %d from a stream of term %d", got[len(got)-1].Term, term)
		}
	}
}

func (s *suite) deliverContinues() {
	lead := s.leader()
	stream, _ := s.propose(lead)
	s.must(send(stream, numbered(50)...))
	all := s.attach(lead, nil).until("payload-50")
	epoch := s.status(lead).Epoch
	for k := 0; k < len(all)-1; k += 7 {
		for i := range s.Members {
			got := s.attach(i, position(epoch, all[k])).until("payload-50")
			if len(got) != len(all)-1-k || got[0].Index != all[k].Index+1 {
				s.Errorf("member %d: %d entries after %d of %d", i, len(got), all[k].Index, len(all))
			}
		}
	}
	d := s.attach(lead, position(epoch, all[len(all)-1]))
	r, err := d.stream.Recv()
	s.must(err)
	if len(r.Entries) != 0 || r.ClusterId != s.status(lead).ClusterId || r.Epoch != epoch {
		s.Errorf("first response at the end of the log: %v", r)
	}
	s.must(send(stream, "more"))
	d.until("more")
}

func position(epoch uint64, e *consensuspb.Entry) *logpb.LogID {
	return &logpb.LogID{Epoch: epoch, Index: e.Index, Term: e.Term}
}

func (s *suite) deliverRefuses() {
	lead := s.leader()
	stream, _ := s.propose(lead)
	s.must(send(stream, "a"))
	all := s.attach(lead, nil).until("a")
	last, epoch := all[len(all)-1], s.status(lead).Epoch
	for name, start := range map[string]*consensuspb.DeliverStart{
		"another term":    {After: &logpb.LogID{Epoch: epoch, Index: last.Index, Term: last.Term + 1}},
		"another epoch":   {After: position(epoch+1, last)},
		"another cluster": {After: position(epoch, last), ClusterId: s.status(lead).ClusterId + 1},
	} {
		start.Store = "other"
		d, err := s.Members[lead].Client.Deliver(s.ctx)
		s.must(err)
		s.must(d.Send(&consensuspb.DeliverRequest{Start: start}))
		if _, err := d.Recv(); !errors.Is(err, errs.ErrLogMismatch) {
			s.Errorf("%s: %v", name, err)
		}
	}
}

func (s *suite) deliverNeedsAStart() {
	for _, first := range []*consensuspb.DeliverRequest{
		{},
		{Progress: &consensuspb.DeliverProgress{}},
		{Start: &consensuspb.DeliverStart{}},
	} {
		d, err := s.Members[0].Client.Deliver(s.ctx)
		s.must(err)
		s.must(d.Send(first))
		_, err = d.Recv()
		s.wantCode(err, codes.InvalidArgument)
	}
}

func (s *suite) readIndexCovers() {
	lead := s.leader()
	stream, term := s.propose(lead)
	d := s.attach(lead, nil)
	for _, p := range numbered(30) {
		s.must(send(stream, p))
		d.until(p)
		r, err := s.Members[lead].Client.ReadIndex(s.ctx, &consensuspb.ReadIndexRequest{})
		s.must(err)
		if r.Read.Index < d.last || r.Term != term || r.Read.Term != term || r.Read.Epoch != s.status(lead).Epoch {
			s.Fatalf("read index %v of term %d, after delivery of %d in term %d", r.Read, r.Term, d.last, term)
		}
	}
}

func (s *suite) refusedPayloadEnds() {
	lead := s.leader()
	stream, _ := s.propose(lead)
	s.must(send(stream, "before"))
	s.must(send(stream, "beside", s.large(), "beside too"))
	_ = send(stream, "after") // may find the stream ended already
	_, err := stream.Recv()
	s.wantErr(err, errs.ErrPayloadTooLarge)
	again, _ := s.propose(lead)
	s.must(send(again, "end"))
	if got := payloads(s.attach(lead, nil).until("end")); !slices.Equal(got, []string{"before", "end"}) {
		s.Errorf("delivered %q", got)
	}
}

func (s *suite) streamEndsWithItsTerm() {
	lead := s.leader()
	stream, term := s.propose(lead)
	s.Members[lead].Stop()
	if _, err := stream.Recv(); !errors.Is(err, errs.ErrNotLeader) && status.Code(err) != codes.Unavailable {
		s.Errorf("the stream ended with %v", err)
	}
	if _, next := s.propose(s.leader(s.others(lead)...)); next <= term {
		s.Errorf("term %d after term %d", next, term)
	}
}

func (s *suite) nothingLost() {
	lead := s.leader()
	stream, _ := s.propose(lead)
	want := numbered(100)
	s.must(send(stream, want...))
	s.attach(lead, nil).until(want[len(want)-1])
	s.Members[lead].Stop()
	rest := s.others(lead)
	stream, _ = s.propose(s.leader(rest...))
	s.must(send(stream, "end"))
	for _, i := range rest {
		if got := payloads(s.attach(i, nil).until("end")); !slices.Equal(got, append(slices.Clone(want), "end")) {
			s.Errorf("member %d delivered %q", i, got)
		}
	}
}

func (s *suite) progressIsReported() {
	lead := s.leader()
	stream, _ := s.propose(lead)
	s.must(send(stream, "a"))
	d := s.attach(lead, nil)
	all := d.until("a")
	if st := s.status(lead); st.Applied != 0 || st.Synced != 0 || st.Commit < d.last || st.Last < d.last || st.First != 1 {
		s.Errorf("before any progress: %v", st)
	}
	at := position(s.status(lead).Epoch, all[len(all)-1])
	s.must(d.stream.Send(&consensuspb.DeliverRequest{Progress: &consensuspb.DeliverProgress{Applied: at, Synced: at}}))
	for st := s.status(lead); st.Applied != d.last || st.Synced != d.last; st = s.status(lead) {
		runtime.Gosched() // nothing tells when progress was received; status ends with ctx
	}
	s.observe(s.Members[lead], func(st *consensuspb.Status) bool { return st.Publisher == st.MemberId })
	for !d.publish {
		r, err := d.stream.Recv()
		s.must(err)
		d.publish = r.Publish
	}
}

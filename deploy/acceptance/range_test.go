package acceptance

import (
	"errors"
	"fmt"
	"io"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// rangeScene holds a (versions 1..3), b, c, d deleted, and e with a lease:
// a=3(+1,+6,v3) b=9(+2,+2,v1) c=5(+3,+3,v1) d deleted at +8, e=1(+9,+9,v1,lease).
func rangeScene(t *testing.T, tg *target) *scene {
	s := newScene(t, tg)
	lease := s.grant(600)
	s.must(
		s.put("a", "1"), s.put("b", "9"), s.put("c", "5"), s.put("d", "0"),
		s.put("a", "2"), s.put("a", "3"), s.put("d", "1"), s.del("d"),
		&pb.PutRequest{Key: s.k("e"), Value: []byte("1"), Lease: lease},
	)
	return s
}

func TestRange(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := rangeScene(t, tg)
		const (
			a = "a=3(+1,+6,v3)"
			b = "b=9(+2,+2,v1)"
			c = "c=5(+3,+3,v1)"
			e = "e=1(+9,+9,v1,lease)"
		)
		with := func(f func(*pb.RangeRequest)) *pb.RangeRequest {
			r := s.all()
			f(r)
			return r
		}
		sorted := func(o pb.RangeRequest_SortOrder, by pb.RangeRequest_SortTarget) *pb.RangeRequest {
			return with(func(r *pb.RangeRequest) { r.SortOrder, r.SortTarget = o, by })
		}
		keysOnly := "+9 [a=(+1,+6,v3) b=(+2,+2,v1) c=(+3,+3,v1) e=(+9,+9,v1)] count 4"
		keysOnlyByValue := "+9 [b=(+2,+2,v1) c=(+3,+3,v1) a=(+1,+6,v3) e=(+9,+9,v1,lease)] count 4"
		if tg.has(keysOnlyKeepsLease) {
			keysOnly = "+9 [a=(+1,+6,v3) b=(+2,+2,v1) c=(+3,+3,v1) e=(+9,+9,v1,lease)] count 4"
		}
		all := fmt.Sprintf("+9 [%s %s %s %s] count 4", a, b, c, e)
		tests := []struct {
			name string
			req  *pb.RangeRequest
			want string
		}{
			{"all", s.all(), all},
			{"serializable", with(func(r *pb.RangeRequest) { r.Serializable = true; r.Revision = s.base + 9 }), all},
			{"one key", s.get("b"), fmt.Sprintf("+9 [%s] count 1", b)},
			{"no such key", s.get("x"), "+9 [] count 0"},
			{"deleted key", s.get("d"), "+9 [] count 0"},
			{"half open", &pb.RangeRequest{Key: s.k("b"), RangeEnd: s.k("e")}, fmt.Sprintf("+9 [%s %s] count 2", b, c)},
			{"inverted", &pb.RangeRequest{Key: s.k("c"), RangeEnd: s.k("a")}, "+9 [] count 0"},
			{"empty by equal ends", &pb.RangeRequest{Key: s.k("a"), RangeEnd: s.k("a")}, "+9 [] count 0"},
			{"empty key", &pb.RangeRequest{}, "error InvalidArgument: etcdserver: key is not provided"},
			{"empty key with an end", &pb.RangeRequest{RangeEnd: []byte{0}}, "error InvalidArgument: etcdserver: key is not provided"},

			{"limit", with(func(r *pb.RangeRequest) { r.Limit = 2 }), fmt.Sprintf("+9 [%s %s] count 4 more", a, b)},
			{"limit of all", with(func(r *pb.RangeRequest) { r.Limit = 4 }), all},
			{"negative limit", with(func(r *pb.RangeRequest) { r.Limit = -1 }), all},
			{"count only", with(func(r *pb.RangeRequest) { r.CountOnly = true }), "+9 [] count 4"},
			{"count only with limit", with(func(r *pb.RangeRequest) { r.CountOnly = true; r.Limit = 1 }), "+9 [] count 4"},
			{"keys only", with(func(r *pb.RangeRequest) { r.KeysOnly = true }), keysOnly},
			{"keys only, sorted by create", with(func(r *pb.RangeRequest) {
				r.KeysOnly, r.SortTarget = true, pb.RangeRequest_CREATE
			}), keysOnly},
			{"keys only, sorted by value", with(func(r *pb.RangeRequest) {
				r.KeysOnly, r.SortTarget, r.SortOrder = true, pb.RangeRequest_VALUE, pb.RangeRequest_DESCEND
			}), keysOnlyByValue},

			{"old revision", with(func(r *pb.RangeRequest) { r.Revision = s.base + 5 }), "+9 [a=2(+1,+5,v2) b=9(+2,+2,v1) c=5(+3,+3,v1) d=0(+4,+4,v1)] count 4"},
			{"old revision, count only", with(func(r *pb.RangeRequest) { r.Revision = s.base + 3; r.CountOnly = true }), "+9 [] count 3"},
			{"before the first", with(func(r *pb.RangeRequest) { r.Revision = s.base }), "+9 [] count 0"},
			{"current revision", with(func(r *pb.RangeRequest) { r.Revision = s.base + 9 }), all},
			{"negative revision", with(func(r *pb.RangeRequest) { r.Revision = -1 }), all},
			{"future revision", with(func(r *pb.RangeRequest) { r.Revision = s.base + 10 }), "error OutOfRange: etcdserver: mvcc: required revision is a future revision"},
			{"future revision, serializable", with(func(r *pb.RangeRequest) { r.Revision = s.base + 1000000; r.Serializable = true }),
				"error OutOfRange: etcdserver: mvcc: required revision is a future revision"},

			{"descending keys", sorted(pb.RangeRequest_DESCEND, pb.RangeRequest_KEY), fmt.Sprintf("+9 [%s %s %s %s] count 4", e, c, b, a)},
			{"ascending keys", sorted(pb.RangeRequest_ASCEND, pb.RangeRequest_KEY), all},
			{"by mod, no order is ascending", sorted(pb.RangeRequest_NONE, pb.RangeRequest_MOD), fmt.Sprintf("+9 [%s %s %s %s] count 4", b, c, a, e)},
			{"by mod descending", sorted(pb.RangeRequest_DESCEND, pb.RangeRequest_MOD), fmt.Sprintf("+9 [%s %s %s %s] count 4", e, a, c, b)},
			{"by create descending", sorted(pb.RangeRequest_DESCEND, pb.RangeRequest_CREATE), fmt.Sprintf("+9 [%s %s %s %s] count 4", e, c, b, a)},
			{"by version descending, limit 1", with(func(r *pb.RangeRequest) {
				r.SortOrder, r.SortTarget, r.Limit = pb.RangeRequest_DESCEND, pb.RangeRequest_VERSION, 1
			}), fmt.Sprintf("+9 [%s] count 4 more", a)},
			{"by value descending", sorted(pb.RangeRequest_DESCEND, pb.RangeRequest_VALUE), fmt.Sprintf("+9 [%s %s %s %s] count 4", b, c, a, e)},

			{"count ignores filters", with(func(r *pb.RangeRequest) { r.MinModRevision = s.base + 3 }), fmt.Sprintf("+9 [%s %s %s] count 4", a, c, e)},
			{"max mod", with(func(r *pb.RangeRequest) { r.MaxModRevision = s.base + 3 }), fmt.Sprintf("+9 [%s %s] count 4", b, c)},
			{"min create", with(func(r *pb.RangeRequest) { r.MinCreateRevision = s.base + 2 }), fmt.Sprintf("+9 [%s %s %s] count 4", b, c, e)},
			{"max create", with(func(r *pb.RangeRequest) { r.MaxCreateRevision = s.base + 1 }), fmt.Sprintf("+9 [%s] count 4", a)},
			{"limit after filter", with(func(r *pb.RangeRequest) { r.MinModRevision = s.base + 3; r.Limit = 2 }), fmt.Sprintf("+9 [%s %s] count 4 more", a, c)},
			{"limit of what the filter leaves", with(func(r *pb.RangeRequest) { r.MinModRevision = s.base + 3; r.Limit = 3 }), fmt.Sprintf("+9 [%s %s %s] count 4", a, c, e)},
			{"limit after sort and filter", with(func(r *pb.RangeRequest) {
				r.MaxModRevision, r.Limit, r.SortOrder, r.SortTarget = s.base+6, 1, pb.RangeRequest_DESCEND, pb.RangeRequest_MOD
			}), fmt.Sprintf("+9 [%s] count 4 more", a)},
			{"filters at an old revision", with(func(r *pb.RangeRequest) { r.Revision = s.base + 5; r.MinModRevision = s.base + 4 }),
				"+9 [a=2(+1,+5,v2) d=0(+4,+4,v1)] count 4"},
		}
		for _, tt := range tests {
			s.want(tt.name, tt.req, tt.want)
		}
		if tg.has(unknownSortPanics) {
			return
		}
		const invalid = "error InvalidArgument: etcdserver: invalid sort option"
		s.want("unknown order", sorted(7, pb.RangeRequest_KEY), invalid)
		s.want("unknown target", sorted(pb.RangeRequest_ASCEND, 9), invalid)
	})
}

func TestRangeEndOfOneZeroByteIsOpen(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := newScene(t, tg)
		s.prefix = "\xff\xff" + s.prefix // nothing of another test stands behind these
		s.must(s.put("a", "1"), s.put("b", "2"), s.put("\xff\xff", "3"))
		s.want("from b on", &pb.RangeRequest{Key: s.k("b"), RangeEnd: []byte{0}}, "+3 [b=2(+2,+2,v1) \xff\xff=3(+3,+3,v1)] count 2")
		everything, err := s.kv.Range(s.ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true})
		if err != nil || everything.Count < 3 {
			t.Errorf("count of everything: %v, %v", everything, err)
		}
		s.want("delete from b on", &pb.DeleteRangeRequest{Key: s.k("b"), RangeEnd: []byte{0}, PrevKv: true}, "+4 deleted 2 prev [b=2(+2,+2,v1) \xff\xff=3(+3,+3,v1)]")
		s.want("a is left", s.get("a"), "+4 [a=1(+1,+1,v1)] count 1")
	})
}

func TestRangeStreamAnswersLikeRange(t *testing.T) {
	onEach(t, func(t *testing.T, tg *target) {
		s := rangeScene(t, tg)
		for i := range 300 {
			s.must(s.put(fmt.Sprintf("many/%03d", i), fmt.Sprint(i)))
		}
		if tg.has(noRangeStream) {
			if _, err := s.rangeStream(s.all()); err == nil {
				t.Error("RangeStream works; the difference noRangeStream is out of date")
			}
			return
		}
		for name, change := range map[string]func(*pb.RangeRequest){
			"all":          func(*pb.RangeRequest) {},
			"limit":        func(r *pb.RangeRequest) { r.Limit = 17 },
			"old revision": func(r *pb.RangeRequest) { r.Revision = s.base + 5 },
			"keys only":    func(r *pb.RangeRequest) { r.KeysOnly = true },
			"count only":   func(r *pb.RangeRequest) { r.CountOnly = true },
			"empty":        func(r *pb.RangeRequest) { r.RangeEnd = r.Key },
			"one key":      func(r *pb.RangeRequest) { r.Key, r.RangeEnd = s.k("a"), nil },
			"empty key":    func(r *pb.RangeRequest) { r.Key = nil },
			"future":       func(r *pb.RangeRequest) { r.Revision = s.base + 1000000 },
		} {
			req := s.all()
			change(req)
			streamed, err := s.rangeStream(req)
			got := ""
			if err != nil {
				got = showError(err)
			} else {
				got = s.show(streamed)
			}
			s.want(name, req, got)
		}
		for name, req := range map[string]*pb.RangeRequest{
			"descending": {Key: s.k(""), RangeEnd: s.end(), SortOrder: pb.RangeRequest_DESCEND},
			"by mod":     {Key: s.k(""), RangeEnd: s.end(), SortTarget: pb.RangeRequest_MOD},
			"min mod":    {Key: s.k(""), RangeEnd: s.end(), MinModRevision: 1},
			"max create": {Key: s.k(""), RangeEnd: s.end(), MaxCreateRevision: 1},
		} {
			if name == "by mod" && tg.has(streamTakesTargetWithoutOrder) {
				continue
			}
			if _, err := s.rangeStream(req); err == nil || showError(err)[:19] != "error Unimplemented" {
				t.Errorf("%s: %v, want Unimplemented", name, err)
			}
		}
	})
}

// rangeStream joins the chunks of a RangeStream; only the last may carry header,
// more and count.
func (s *scene) rangeStream(req *pb.RangeRequest) (*pb.RangeResponse, error) {
	stream, err := s.kv.RangeStream(s.ctx, req)
	if err != nil {
		return nil, err
	}
	whole := &pb.RangeResponse{}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return whole, nil
		}
		if err != nil {
			return nil, err
		}
		r := chunk.RangeResponse
		if whole.Header != nil {
			s.t.Errorf("a chunk after the one with the header: %v", r)
		}
		if r.Header == nil && (r.More || r.Count != 0) {
			s.t.Errorf("more or count on a chunk that is not the last: %v", r)
		}
		whole.Kvs = append(whole.Kvs, r.Kvs...)
		whole.Header, whole.More, whole.Count = r.Header, r.More, r.Count
	}
}

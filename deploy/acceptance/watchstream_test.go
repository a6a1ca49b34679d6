package acceptance

import (
	"context"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

const (
	responseWithin  = 10 * time.Second       // a response that must come
	progressEvery   = 100 * time.Millisecond // kube-apiserver's pace of asking
	responsesQueued = 10000                  // responses a test has not looked at yet
)

// watchStream is one raw watch stream.
type watchStream struct {
	s         *scene
	stream    pb.Watch_WatchClient
	responses chan *pb.WatchResponse // closed at the end of the stream, then err is set
	err       error
}

// watchWith opens a watch stream that ends with the test.
func (s *scene) watchWith(ctx context.Context) *watchStream {
	s.t.Helper()
	stream, err := s.watch.Watch(ctx)
	if err != nil {
		s.t.Fatalf("open watch stream: %v", err)
	}
	w := &watchStream{s: s, stream: stream, responses: make(chan *pb.WatchResponse, responsesQueued)}
	go func() {
		defer close(w.responses)
		for {
			resp, err := stream.Recv()
			if err != nil {
				w.err = err
				return
			}
			w.responses <- resp
		}
	}()
	return w
}

// watching opens a stream with one watch on it, whose creation it has seen.
func (s *scene) watching(req *pb.WatchCreateRequest) *watchStream {
	s.t.Helper()
	w := s.watchWith(s.ctx)
	w.create(req)
	if resp := w.recv(); !resp.Created || resp.Canceled {
		s.t.Fatalf("creation of the watch: %s", s.showWatch(resp))
	}
	return w
}

// allWatched is a watch of all keys of the scene.
func (s *scene) allWatched() *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: s.k(""), RangeEnd: s.end()}
}

func (w *watchStream) send(req *pb.WatchRequest) {
	w.s.t.Helper()
	if err := w.stream.Send(req); err != nil {
		w.s.t.Fatalf("send on watch stream: %v", err)
	}
}

func (w *watchStream) create(req *pb.WatchCreateRequest) {
	w.s.t.Helper()
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}})
}

func (w *watchStream) cancel(id int64) {
	w.s.t.Helper()
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

func (w *watchStream) askProgress() {
	w.s.t.Helper()
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

// recv returns the next response, which must come.
func (w *watchStream) recv() *pb.WatchResponse {
	w.s.t.Helper()
	select {
	case resp, ok := <-w.responses:
		if !ok {
			w.s.t.Fatalf("the watch stream ended: %v", w.err)
		}
		return resp
	case <-time.After(responseWithin):
		w.s.t.Fatalf("no watch response within %v", responseWithin)
		return nil
	}
}

// want compares the next responses with their shown texts.
func (w *watchStream) want(name string, texts ...string) {
	w.s.t.Helper()
	for _, text := range texts {
		if got := w.s.showWatch(w.recv()); got != text {
			w.s.t.Errorf("%s:\n got %s\nwant %s", name, got, text)
		}
	}
}

// wantQuiet shows that nothing more is on its way: it asks for progress until
// that is answered, and lets nothing come before the answer.
func (w *watchStream) wantQuiet(name string) *pb.WatchResponse {
	w.s.t.Helper()
	ask := time.NewTicker(progressEvery)
	defer ask.Stop()
	deadline := time.After(responseWithin)
	w.askProgress()
	for {
		select {
		case resp, ok := <-w.responses:
			if !ok {
				w.s.t.Fatalf("%s: the watch stream ended: %v", name, w.err)
			}
			if resp.WatchId != -1 || len(resp.Events) > 0 || resp.Canceled {
				w.s.t.Errorf("%s: got %s, want only progress", name, w.s.showWatch(resp))
				continue
			}
			return resp
		case <-ask.C:
			w.askProgress()
		case <-deadline:
			w.s.t.Fatalf("%s: no answer to progress requests within %v", name, responseWithin)
		}
	}
}

// showWatch is "id revision", what the response says, and its events.
func (s *scene) showWatch(r *pb.WatchResponse) string {
	text := fmt.Sprintf("id %d %s", r.WatchId, s.header(r.Header))
	if r.Created {
		text += " created"
	}
	if r.Canceled {
		text += " canceled"
	}
	if r.CompactRevision != 0 {
		text += " compacted at " + s.rev(r.CompactRevision)
	}
	if r.CancelReason != "" {
		text += fmt.Sprintf(" %q", r.CancelReason)
	}
	if r.Fragment {
		text += " fragment"
	}
	if len(r.Events) > 0 {
		text += " " + s.showEvents(r.Events)
	}
	return text
}

func (s *scene) showEvents(events []*mvccpb.Event) string {
	var list []string
	for _, ev := range events {
		text := fmt.Sprintf("%v %s", ev.Type, s.showKV(ev.Kv))
		if ev.PrevKv != nil {
			text += " prev " + s.showKV(ev.PrevKv)
		}
		list = append(list, text)
	}
	return "[" + strings.Join(list, "; ") + "]"
}

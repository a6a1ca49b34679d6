package watch

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// onProgressRequest answers a manual progress request if all watchers of the
// stream are synced, with current, once that has reached what this gateway has
// answered before: a client that just read revision R waits for the progress of
// R. Where etcd says nothing, nothing is said.
func (h *Hub) onProgressRequest(s *stream) {
	if from := h.deps.Floor(); from > h.current {
		s.progressFrom = from
		h.waiting[s] = struct{}{}
		return
	}
	h.progress(s)
}

// answerWaiting answers the requests that waited for current to move.
func (h *Hub) answerWaiting() {
	for s := range h.waiting {
		if s.progressFrom <= h.current {
			delete(h.waiting, s)
			h.progress(s)
		}
	}
}

func (h *Hub) progress(s *stream) {
	if len(s.watchers) == 0 {
		return
	}
	for _, w := range s.watchers {
		if !h.mayProgress(w) {
			return
		}
	}
	h.answer(s, &pb.WatchResponse{Header: h.deps.Header(h.current), WatchId: invalidWatchID})
}

// mayProgress tells whether current may be promised to the watcher: it has been
// given every event up to there, and does not start later.
func (h *Hub) mayProgress(w *watcher) bool {
	return w.state == synced && h.current >= w.progressFrom
}

// notify begins the stream's periodic progress.
func (h *Hub) notify(s *stream) {
	if _, on := h.notified[s]; on {
		return
	}
	h.notified[s] = struct{}{}
	s.progressAt = h.deps.Clock.Now() + h.progressPause()
}

// progressPause is the interval and up to a tenth more, so that streams which
// began together do not stay together.
func (h *Hub) progressPause() time.Duration {
	return h.cfg.ProgressInterval + time.Duration(h.rand.Int64N(int64(h.cfg.ProgressInterval/10)))
}

// onTick sends the periodic progress that is due.
func (h *Hub) onTick(now dueTime) {
	for s := range h.notified {
		if now < s.progressAt {
			continue
		}
		s.progressAt = now + h.progressPause()
		if !h.notifyWatchers(s) {
			delete(h.notified, s)
		}
	}
}

// notifyWatchers tells the stream's quiet watchers where they stand; false if
// none of them asked for it.
func (h *Hub) notifyWatchers(s *stream) (asked bool) {
	for _, w := range s.watchers {
		if !w.notify {
			continue
		}
		asked = true
		if w.quiet && h.mayProgress(w) {
			m := controlMessage(&pb.WatchResponse{Header: h.deps.Header(h.current), WatchId: w.id})
			h.tryPut(s, response{message: m, bytes: m.bytes})
		}
		w.quiet = true
	}
	return asked
}

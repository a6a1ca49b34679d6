package session

import (
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/proto/logpb"
)

// begin makes a new Propose stream the current one: everything in flight is to
// be sent again on it. It returns the stream's number.
func (w *window) begin() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.stream++
	w.mu.cursor = 0
	w.mu.opening = false
	w.mu.payloads.clear()
	return w.mu.stream
}

// gather takes what is to be sent next on the stream, as one encoded
// logpb.Batch. Nil says that there is nothing to send now; wake tells when to
// look again. False says that the stream is no longer the current one.
func (w *window) gather(stream uint64, scratch *logpb.Batch) (payload []byte, current bool) {
	b, current := w.take(stream, scratch)
	if b == nil {
		return nil, current
	}
	payload, err := proto.Marshal(b)
	if err != nil {
		panic("session: a batch does not marshal: " + err.Error()) // bytes fields only: cannot
	}
	w.metric.payloads.Inc()
	return payload, true
}

// take is gather without the encoding, which needs no lock: commands never
// change.
func (w *window) take(stream uint64, b *logpb.Batch) (*logpb.Batch, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if stream != w.mu.stream {
		return nil, false
	}
	if w.mu.identity.id == 0 {
		return w.takeOpenLocked(), true
	}
	if w.mu.payloads.len() >= w.config.InflightPayloadsMax {
		w.mu.waiting = true
		return nil, true
	}
	b.Session, b.Acked = w.mu.identity.id, w.mu.first-1
	b.FirstSeq = w.mu.first + uint64(w.mu.cursor)
	b.Commands = b.Commands[:0]
	for size := 0; len(b.Commands) < w.config.PayloadCommandsMax; {
		c := w.nextLocked(w.config.PayloadBytesMax-size, size == 0)
		if c == nil {
			break
		}
		size += cost(c)
		b.Commands = append(b.Commands, c)
	}
	if len(b.Commands) == 0 {
		w.mu.waiting = true
		return nil, true
	}
	w.mu.payloads.push(b.FirstSeq + uint64(len(b.Commands)) - 1)
	return b, true
}

// nextLocked takes the next command of the stream: one in flight that this
// stream was not sent yet, else the head of the queue. Nil when there is none or
// it is larger than room; the first of a payload may be.
func (w *window) nextLocked(room int, first bool) *logpb.Command {
	if w.mu.cursor == w.mu.inflight.len() && !w.maybeLaunchLocked(room, first) {
		return nil
	}
	s := w.mu.inflight.at(w.mu.cursor)
	if cost(s.command) > room && !first {
		return nil
	}
	if s.sends++; s.sends > 1 {
		w.metric.resent.Inc()
	}
	w.mu.cursor++
	return s.command
}

// maybeLaunchLocked gives the head of the queue the next number, if the limits
// allow it.
func (w *window) maybeLaunchLocked(room int, first bool) bool {
	for w.mu.queue.len() > 0 && (*w.mu.queue.at(0)).abandoned {
		w.mu.queue.pop()
		w.mu.withdrawn--
	}
	if w.mu.queue.len() == 0 {
		return false
	}
	c := *w.mu.queue.at(0)
	size := cost(c.command)
	if size > room && !first {
		return false
	}
	if n := w.mu.inflight.len(); n >= w.config.InflightCommandsMax || n > 0 && w.mu.inflightBytes+size > w.config.InflightBytesMax {
		return false
	}
	w.mu.queue.pop()
	w.mu.queueBytes -= size
	w.mu.inflightBytes += size
	w.mu.unanswered++
	c.place = inflight
	w.mu.inflight.push(slot{command: c.command, call: c})
	w.metric.commands.Inc()
	return true
}

// takeOpenLocked is the batch that opens the session, once per stream.
func (w *window) takeOpenLocked() *logpb.Batch {
	w.mu.waiting = true
	if w.mu.opening || w.mu.stopped {
		return nil
	}
	w.mu.opening, w.mu.waiting = true, false
	body, err := proto.Marshal(&logpb.SessionOpen{
		Nonce:      w.mu.identity.nonce,
		Owner:      w.config.Owner,
		Member:     w.config.Member,
		ClientUrls: w.config.ClientURLs,
	})
	if err != nil {
		panic("session: an owner or URL is not UTF-8: " + err.Error())
	}
	return &logpb.Batch{Commands: []*logpb.Command{{Kind: logpb.Command_SESSION_OPEN, Body: body}}}
}

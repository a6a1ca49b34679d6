package watch

import "github.com/quartet-kv/quartet/gatewayd/internal/watch/interval"

// span is what a watcher watches: one key, or [key, end), or [key, ∞).
type span struct {
	key string
	// end is meaningful if the span is a range; "" is no bound.
	end    string
	single bool
}

// spanOf reads a span off the wire: an empty end is the key alone, "\0" is
// everything from it on.
func spanOf(key, end []byte) span {
	switch {
	case len(end) == 0:
		return span{key: string(key), single: true}
	case len(end) == 1 && end[0] == 0:
		return span{key: string(key)}
	}
	return span{key: string(key), end: string(end)}
}

func (s span) empty() bool { return !s.single && s.end != "" && s.key >= s.end }

func (s span) holds(key []byte) bool {
	if s.single {
		return string(key) == s.key
	}
	return string(key) >= s.key && (s.end == "" || string(key) < s.end)
}

// wire is the inverse of spanOf.
func (s span) wire() (key, end []byte) {
	switch {
	case s.single:
		return []byte(s.key), nil
	case s.end == "":
		return []byte(s.key), []byte{0}
	}
	return []byte(s.key), []byte(s.end)
}

// hull is the least span that covers both.
func (s span) hull(o span) span {
	if s == o {
		return s
	}
	s, o = s.widened(), o.widened()
	h := span{key: min(s.key, o.key)}
	if s.end != "" && o.end != "" {
		h.end = max(s.end, o.end)
	}
	return h
}

// widened is the span as a range.
func (s span) widened() span {
	if s.single {
		return span{key: s.key, end: s.key + "\x00"}
	}
	return s
}

// index finds who watches a key. Those of one span share a bucket, so a key's
// lookup costs a map access and one search of the distinct ranges, however many
// watchers there are.
type index[E any] struct {
	keys   map[string]*bucket[E]
	ranges interval.Tree[*bucket[E]]
}

// bucket holds the elements of one span, in no order.
type bucket[E any] struct {
	span  span
	items []E
}

func newIndex[E any]() *index[E] { return &index[E]{keys: make(map[string]*bucket[E])} }

// bucket finds the span's bucket or makes an empty one.
func (x *index[E]) bucket(s span) *bucket[E] {
	if s.single {
		b, ok := x.keys[s.key]
		if !ok {
			b = &bucket[E]{span: s}
			x.keys[s.key] = b
		}
		return b
	}
	b, ok := x.ranges.Get(s.key, s.end)
	if !ok {
		b = &bucket[E]{span: s}
		x.ranges.Set(s.key, s.end, b)
	}
	return b
}

// drop forgets a bucket that has become empty.
func (x *index[E]) drop(b *bucket[E]) {
	if b.span.single {
		delete(x.keys, b.span.key)
		return
	}
	x.ranges.Delete(b.span.key, b.span.end)
}

// visit calls f for each bucket whose span holds the key. Buckets must not be
// made or dropped meanwhile.
func (x *index[E]) visit(key []byte, f func(*bucket[E])) {
	if b, ok := x.keys[string(key)]; ok {
		f(b)
	}
	if x.ranges.Len() > 0 {
		x.ranges.Stab(key, f)
	}
}

package keyspace

// existence is a key that came (delta 1) or went (-1) at a revision.
type existence struct {
	entry    *entry
	revision int64
	delta    int
}

// recent remembers the last creates and deletes, oldest first, so that a
// reader at a past revision can be told what is missing and what is new.
type recent struct {
	ring  []existence
	first int
	n     int
	max   int
}

// push remembers one more, and returns the one that must be forgotten for it.
func (r *recent) push(x existence) (forgotten existence, ok bool) {
	if r.n == r.max {
		forgotten, ok = r.ring[r.first], true
		r.ring[r.first] = x
		r.first = (r.first + 1) % r.max
		return forgotten, ok
	}
	if r.n == len(r.ring) {
		r.grow()
	}
	r.ring[(r.first+r.n)%len(r.ring)] = x
	r.n++
	return existence{}, false
}

func (r *recent) grow() {
	ring := make([]existence, min(r.max, max(64, 2*len(r.ring))))
	for i := range r.n {
		ring[i] = r.ring[(r.first+i)%len(r.ring)]
	}
	r.ring, r.first = ring, 0
}

// since sums up how many keys more there are in [lo, hi) than at revision at.
func (r *recent) since(at int64, lo string, hi bound) int {
	sum := 0
	for i := r.n - 1; i >= 0; i-- {
		x := &r.ring[(r.first+i)%len(r.ring)]
		if x.revision <= at {
			break
		}
		if x.entry.key >= lo && !hi.above(x.entry.key) {
			sum += x.delta
		}
	}
	return sum
}

// queue is a first-in, first-out list of entries.
type queue struct {
	ring  []*entry
	first int
	n     int
}

func (q *queue) push(e *entry) {
	if q.n == len(q.ring) {
		ring := make([]*entry, max(64, 2*q.n))
		for i := range q.n {
			ring[i] = q.ring[(q.first+i)%q.n]
		}
		q.ring, q.first = ring, 0
	}
	q.ring[(q.first+q.n)%len(q.ring)] = e
	q.n++
}

func (q *queue) pop() *entry {
	e := q.ring[q.first]
	q.ring[q.first] = nil
	q.first = (q.first + 1) % len(q.ring)
	q.n--
	return e
}

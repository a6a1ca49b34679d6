package session

// deque is a queue in a ring that grows and never shrinks: its length is bounded
// by the window's limits.
type deque[T any] struct {
	ring []T
	head int
	n    int
}

func (d *deque[T]) len() int { return d.n }

// at is the i-th element from the front, until the next push or pop.
func (d *deque[T]) at(i int) *T { return &d.ring[(d.head+i)&(len(d.ring)-1)] }

func (d *deque[T]) push(v T) {
	if d.n == len(d.ring) {
		d.grow()
	}
	d.ring[(d.head+d.n)&(len(d.ring)-1)] = v
	d.n++
}

func (d *deque[T]) pop() T {
	var zero T
	v := d.ring[d.head]
	d.ring[d.head] = zero
	d.head = (d.head + 1) & (len(d.ring) - 1)
	d.n--
	return v
}

func (d *deque[T]) clear() { *d = deque[T]{} }

func (d *deque[T]) grow() {
	ring := make([]T, max(16, 2*len(d.ring))) // a power of two, as at needs
	for i := range d.n {
		ring[i] = *d.at(i)
	}
	d.ring, d.head = ring, 0
}

// Package interval is an ordered map from half-open intervals of byte strings
// to values that finds every interval which holds a given point.
//
// It is a treap ordered by (lo, hi), each node augmented with the greatest upper
// bound below it, so that a search turns away from subtrees that end before the
// point. Set, Get and Delete cost O(log n) expected; Stab costs O(log n + k) for
// k hits among intervals that nest or lie apart, as prefixes do. The shape is a
// function of the calls made: the priorities come from a counter, not from a
// random source.
package interval

// Tree maps intervals [lo, hi) to values. An empty hi stands for no upper
// bound. The zero value is an empty tree. It is not safe for concurrent use.
type Tree[V any] struct {
	root *node[V]
	size int
	made uint64 // nodes ever made; seeds the priorities
}

type node[V any] struct {
	lo, hi      string
	value       V
	max         string // the greatest hi in this subtree; "" is no bound
	priority    uint64
	left, right *node[V]
}

// Len is the number of intervals.
func (t *Tree[V]) Len() int { return t.size }

// Get returns the value of exactly [lo, hi).
func (t *Tree[V]) Get(lo, hi string) (V, bool) {
	for n := t.root; n != nil; {
		switch order(lo, hi, n) {
		case 0:
			return n.value, true
		case -1:
			n = n.left
		default:
			n = n.right
		}
	}
	var none V
	return none, false
}

// Set gives [lo, hi) a value, replacing the one that it had. An interval whose
// lo is not below its hi holds no point and is never found by Stab.
func (t *Tree[V]) Set(lo, hi string, value V) {
	t.made++
	fresh := &node[V]{lo: lo, hi: hi, max: hi, value: value, priority: scramble(t.made)}
	var grown bool
	t.root, grown = insert(t.root, fresh)
	if grown {
		t.size++
	}
}

// Delete removes exactly [lo, hi) and tells whether it was there.
func (t *Tree[V]) Delete(lo, hi string) bool {
	var found bool
	t.root, found = remove(t.root, lo, hi)
	if found {
		t.size--
	}
	return found
}

// Stab calls visit for every interval that holds the point, in order of lo. The
// tree must not be changed meanwhile.
func (t *Tree[V]) Stab(point []byte, visit func(V)) { stab(t.root, point, visit) }

func stab[V any](n *node[V], point []byte, visit func(V)) {
	for n != nil && beyond(n.max, point) {
		stab(n.left, point, visit)
		if string(point) < n.lo {
			return
		}
		if beyond(n.hi, point) {
			visit(n.value)
		}
		n = n.right
	}
}

func insert[V any](n, fresh *node[V]) (*node[V], bool) {
	if n == nil {
		return fresh, true
	}
	var grown bool
	switch order(fresh.lo, fresh.hi, n) {
	case 0:
		n.value = fresh.value
		return n, false
	case -1:
		n.left, grown = insert(n.left, fresh)
		if n.left.priority > n.priority {
			return rotateRight(n), grown
		}
	default:
		n.right, grown = insert(n.right, fresh)
		if n.right.priority > n.priority {
			return rotateLeft(n), grown
		}
	}
	n.update()
	return n, grown
}

func remove[V any](n *node[V], lo, hi string) (*node[V], bool) {
	if n == nil {
		return nil, false
	}
	var found bool
	switch order(lo, hi, n) {
	case 0:
		return merge(n.left, n.right), true
	case -1:
		n.left, found = remove(n.left, lo, hi)
	default:
		n.right, found = remove(n.right, lo, hi)
	}
	n.update()
	return n, found
}

// merge joins two trees of which every interval of the first sorts below every
// one of the second.
func merge[V any](a, b *node[V]) *node[V] {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	if a.priority > b.priority {
		a.right = merge(a.right, b)
		a.update()
		return a
	}
	b.left = merge(a, b.left)
	b.update()
	return b
}

func rotateRight[V any](n *node[V]) *node[V] {
	up := n.left
	n.left, up.right = up.right, n
	n.update()
	up.update()
	return up
}

func rotateLeft[V any](n *node[V]) *node[V] {
	up := n.right
	n.right, up.left = up.left, n
	n.update()
	up.update()
	return up
}

func (n *node[V]) update() {
	n.max = n.hi
	if n.left != nil {
		n.max = later(n.max, n.left.max)
	}
	if n.right != nil {
		n.max = later(n.max, n.right.max)
	}
}

// order is -1, 0 or 1 as (lo, hi) sorts before, at or after n.
func order[V any](lo, hi string, n *node[V]) int {
	switch {
	case lo < n.lo:
		return -1
	case lo > n.lo:
		return 1
	case hi < n.hi:
		return -1
	case hi > n.hi:
		return 1
	}
	return 0
}

func beyond(hi string, point []byte) bool { return hi == "" || hi > string(point) }

func later(a, b string) string {
	if a == "" || b == "" {
		return ""
	}
	return max(a, b)
}

// scramble is the finalizer of splitmix64: distinct inputs give distinct,
// well-spread priorities.
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb
	return x ^ (x >> 31)
}

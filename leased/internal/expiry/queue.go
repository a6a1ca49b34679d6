// Package expiry is a queue of items by the time at which each is due.
//
// It is made for items that are postponed far more often than they come due:
// to postpone is one store, and the heap learns of it when the item reaches the
// top. Every postponement moves an item down at most once, so the whole costs
// what an ordinary heap costs, at the time when it matters least.
//
//	placed ≤ due for every item; the heap is ordered by placed
//
// A Queue is not safe for concurrent use.
package expiry

import (
	"cmp"
	"slices"
	"time"
)

// Item is what a Queue holds, embedded in or pointed to by what it stands for.
// The zero Item is in no queue.
type Item[V any] struct {
	Value V

	due    time.Duration
	placed time.Duration // where the heap believes it to be due
	at     int           // position in the heap + 1; 0 is none
}

// Due is when the item is due; meaningless while it is in no queue.
func (it *Item[V]) Due() time.Duration { return it.due }

// Queued tells whether the item is in a queue.
func (it *Item[V]) Queued() bool { return it.at > 0 }

// Queue orders items by due time. The zero Queue is empty and ready.
type Queue[V any] struct {
	heap []*Item[V]
}

// Len is the number of items.
func (q *Queue[V]) Len() int { return len(q.heap) }

// Set makes the item due at a time, putting it into the queue if it is in none.
// To postpone costs O(1), all else O(log n). Two calls of one item must be on
// the same queue, unless it was removed between them.
func (q *Queue[V]) Set(it *Item[V], due time.Duration) {
	it.due = due
	switch {
	case it.at == 0:
		it.placed = due
		q.heap = append(q.heap, it)
		it.at = len(q.heap)
		q.up(it)
	case due < it.placed:
		it.placed = due
		q.up(it)
	}
}

// Remove takes the item out; one that is in no queue is left alone.
func (q *Queue[V]) Remove(it *Item[V]) {
	if it.at == 0 {
		return
	}
	last := q.heap[len(q.heap)-1]
	q.heap[len(q.heap)-1] = nil
	q.heap = q.heap[:len(q.heap)-1]
	if last != it {
		q.put(last, it.at)
		q.up(last)
		q.down(last)
	}
	it.at = 0
}

// Clear takes every item out.
func (q *Queue[V]) Clear() {
	for _, it := range q.heap {
		it.at = 0
	}
	q.heap = nil
}

// Pop takes the first item out if it is due at now, else it returns nil.
func (q *Queue[V]) Pop(now time.Duration) *Item[V] {
	for len(q.heap) > 0 {
		first := q.heap[0]
		if first.placed > now {
			return nil
		}
		if first.due == first.placed {
			q.Remove(first)
			return first
		}
		first.placed = first.due
		q.down(first)
	}
	return nil
}

// Sorted returns the items, the first to be due first; those due together in
// order of tie.
func (q *Queue[V]) Sorted(tie func(a, b V) int) []*Item[V] {
	out := slices.Clone(q.heap)
	slices.SortFunc(out, func(a, b *Item[V]) int {
		return cmp.Or(cmp.Compare(a.due, b.due), tie(a.Value, b.Value))
	})
	return out
}

func (q *Queue[V]) put(it *Item[V], at int) {
	q.heap[at-1] = it
	it.at = at
}

// up moves the item towards the top until its parent is not later.
func (q *Queue[V]) up(it *Item[V]) {
	for it.at > 1 {
		parent := q.heap[it.at/2-1]
		if parent.placed <= it.placed {
			return
		}
		at := it.at
		q.put(it, parent.at)
		q.put(parent, at)
	}
}

// down moves the item away from the top until no child is earlier.
func (q *Queue[V]) down(it *Item[V]) {
	for {
		at := 2 * it.at
		if at > len(q.heap) {
			return
		}
		child := q.heap[at-1]
		if at < len(q.heap) && q.heap[at].placed < child.placed {
			child = q.heap[at]
		}
		if it.placed <= child.placed {
			return
		}
		from, to := it.at, child.at
		q.put(child, from)
		q.put(it, to)
	}
}

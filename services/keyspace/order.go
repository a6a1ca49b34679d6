package keyspace

import (
	"slices"
	"strings"
)

// blockMax is how many entries a block holds before it is split. Inserting
// moves half of that on average; a look-up compares as often whatever it is.
const blockMax = 512

// order is a sorted list of entries that knows how many lie before any key. It
// is cut into blocks, with the first key of each beside one another, since what
// costs at a million keys is fetching keys from memory, and with a Fenwick tree
// of the blocks' lengths.
//
//	find:   search firsts, then in one block           2 × log₂, no pointers between
//	rank:   sum of the lengths before the block + index in it
//	insert: in the block, split when full              firsts and sums move, rarely
type order struct {
	firsts []string
	blocks [][]*entry
	sums   []int // Fenwick tree of len(blocks[i])
	n      int
}

// place is where an entry stands: blocks[block][index].
type place struct{ block, index int }

// find returns the place of the first entry at or above key, which may be
// beyond the end of its block if no block follows.
func (o *order) find(key string) place {
	b := o.blockOf(key)
	if b < 0 {
		return place{}
	}
	i, _ := slices.BinarySearchFunc(o.blocks[b], key, func(e *entry, key string) int { return strings.Compare(e.key, key) })
	if i == len(o.blocks[b]) && b+1 < len(o.blocks) {
		return place{b + 1, 0}
	}
	return place{b, i}
}

// blockOf is the last block whose first key is at or below key, or -1.
func (o *order) blockOf(key string) int {
	i, found := slices.BinarySearch(o.firsts, key)
	if found {
		return i
	}
	return i - 1
}

// at returns the entry of a place, nil at the end.
func (o *order) at(p place) *entry {
	if p.block >= len(o.blocks) || p.index >= len(o.blocks[p.block]) {
		return nil
	}
	return o.blocks[p.block][p.index]
}

// next is the place after p.
func (o *order) next(p place) place {
	if p.index++; p.index >= len(o.blocks[p.block]) && p.block+1 < len(o.blocks) {
		return place{p.block + 1, 0}
	}
	return p
}

// rank is how many entries are below key.
func (o *order) rank(key string) int {
	if o.n == 0 {
		return 0
	}
	p := o.find(key)
	return o.before(p.block) + p.index
}

// count is how many entries are in [lo, hi); an unbounded hi is no bound.
func (o *order) count(lo string, hi bound) int {
	upper := o.n
	if hi.set {
		upper = o.rank(hi.key)
	}
	return max(0, upper-o.rank(lo))
}

// insert adds an entry whose key is not there.
func (o *order) insert(e *entry) {
	o.n++
	if len(o.blocks) == 0 {
		o.addBlock(0, append(make([]*entry, 0, blockMax), e))
		return
	}
	b := max(0, o.blockOf(e.key))
	block := o.blocks[b]
	i, _ := slices.BinarySearchFunc(block, e.key, func(e *entry, key string) int { return strings.Compare(e.key, key) })
	if len(block) == blockMax {
		if i == blockMax && b == len(o.blocks)-1 {
			// Ascending inserts, as of a fill, leave full blocks behind.
			o.addBlock(b+1, append(make([]*entry, 0, blockMax), e))
			return
		}
		o.split(b)
		if i > blockMax/2 {
			b, i = b+1, i-blockMax/2
		}
		block = o.blocks[b]
	}
	o.blocks[b] = slices.Insert(block, i, e)
	o.firsts[b] = o.blocks[b][0].key
	o.add(b, 1)
}

// remove takes an entry out that is there.
func (o *order) remove(e *entry) {
	p := o.find(e.key)
	if o.at(p) != e {
		panic("keyspace: remove of an entry that is not in order")
	}
	o.n--
	o.blocks[p.block] = slices.Delete(o.blocks[p.block], p.index, p.index+1)
	o.add(p.block, -1)
	switch block := o.blocks[p.block]; {
	case len(block) == 0:
		o.removeBlock(p.block)
	case len(block) < blockMax/4 && p.block+1 < len(o.blocks) && len(block)+len(o.blocks[p.block+1]) <= blockMax/2:
		o.blocks[p.block] = append(block, o.blocks[p.block+1]...)
		o.firsts[p.block] = o.blocks[p.block][0].key
		o.removeBlock(p.block + 1)
	default:
		o.firsts[p.block] = block[0].key
	}
}

func (o *order) split(b int) {
	upper := append(make([]*entry, 0, blockMax), o.blocks[b][blockMax/2:]...)
	clear(o.blocks[b][blockMax/2:])
	o.blocks[b] = o.blocks[b][:blockMax/2]
	o.addBlock(b+1, upper)
}

func (o *order) addBlock(b int, block []*entry) {
	o.blocks = slices.Insert(o.blocks, b, block)
	o.firsts = slices.Insert(o.firsts, b, block[0].key)
	o.sum()
}

func (o *order) removeBlock(b int) {
	o.blocks = slices.Delete(o.blocks, b, b+1)
	o.firsts = slices.Delete(o.firsts, b, b+1)
	o.sum()
}

// sum makes the Fenwick tree anew.
func (o *order) sum() {
	o.sums = slices.Grow(o.sums[:0], len(o.blocks))[:len(o.blocks)]
	for i, block := range o.blocks {
		o.sums[i] = len(block)
	}
	for i := range o.sums {
		if parent := i | (i + 1); parent < len(o.sums) {
			o.sums[parent] += o.sums[i]
		}
	}
}

// add changes the length of block b in the Fenwick tree.
func (o *order) add(b, delta int) {
	for ; b < len(o.sums); b |= b + 1 {
		o.sums[b] += delta
	}
}

// before is how many entries are in the blocks before b.
func (o *order) before(b int) int {
	n := 0
	for b--; b >= 0; b = b&(b+1) - 1 {
		n += o.sums[b]
	}
	return n
}

// all calls each with every entry in order.
func (o *order) all(each func(*entry)) {
	for _, block := range o.blocks {
		for _, e := range block {
			each(e)
		}
	}
}

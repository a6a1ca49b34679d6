//go:build invariants

package invariant

// On tells whether assertions are compiled in.
const On = true

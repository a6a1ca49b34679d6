// Package invariant holds assertions that are too dear for production. They
// run when built with the tag "invariants", which tests and CI set; programmer
// errors that are cheap to see panic without this package.
package invariant

import "fmt"

// Check panics with the formatted state when On is set and ok is false. Guard
// costly conditions with "if invariant.On".
func Check(ok bool, format string, args ...any) {
	if On && !ok {
		panic("invariant violated: " + fmt.Sprintf(format, args...))
	}
}

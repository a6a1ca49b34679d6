// Package storetest holds stores to the promise of package store. Run is the
// suite; a store passes it in process and over a network alike.
//
// The store under test follows a Log, which stands for its member's consensusd:
// what a test appends is committed. Session proposes commands straight into it,
// which also allows what no gateway would do.
package storetest

// Package edge is what every service of the etcd face shares: who the gateway
// speaks for, what it has answered so far, headers, errors, limits of time, and
// the gate that each call passes.
//
// # A call's stages
//
//  1. Gate (an interceptor): count it; refuse a client API version that is not
//     UTF-8; refuse a call that requires a leader while none is known.
//  2. The service's own handler: check, then ask the circle under Limit.
//  3. Header: one complete header in front of the encoded body, or fields of a
//     typed response; either way through Floor.
//  4. Errors leave through WriteError or ReadError and nowhere else.
//
// # Invariants
//
//  1. Floor: no answer carries a revision or term below one that this gateway
//     has answered with, except the revision of a historic read's own store,
//     which the read's floor has kept at or above it.
//  2. The identity does not change while the gateway runs.
//  3. Every error that a client sees has a code and text that etcd has, or the
//     code Unimplemented.
//
// # Goroutines
//
// Watch owns one loop that follows the directory: it raises the term, and ends
// streams that require a leader after three election timeouts without one.
package edge

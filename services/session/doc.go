// Package session is the client's side of the session protocol: commands that
// are applied exactly once, whatever fails between the proposer and the stores.
package session

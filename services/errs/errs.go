// Package errs holds the errors that services promise each other, and the
// table from etcd's error texts to the status that etcd answers with.
//
// Every error here is a gRPC status, so that errors.Is finds it on both sides
// of a connection and of an in-process call alike.
package errs

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	// ErrNotLeader is returned by Consensus.Propose and ReadIndex on a member
	// that does not lead, or no longer leads the term that a stream is bound to.
	ErrNotLeader = status.Error(codes.FailedPrecondition, "quartet: not leader")

	// ErrNoLeader is returned when no member is known to lead.
	ErrNoLeader = status.Error(codes.Unavailable, "quartet: no leader")

	// ErrTooManyRequests is returned by Consensus.Propose when the log may not
	// grow: too much is uncommitted, or undelivered at the hard cap.
	ErrTooManyRequests = status.Error(codes.ResourceExhausted, "quartet: too many requests")

	// ErrPayloadTooLarge is returned by Consensus.Propose for a payload above
	// the limit of an entry.
	ErrPayloadTooLarge = status.Error(codes.InvalidArgument, "quartet: payload too large")

	// ErrStopped is returned by any service that is shutting down.
	ErrStopped = status.Error(codes.Unavailable, "quartet: stopped")

	// ErrNotReady is returned by a service that cannot answer yet: a store
	// behind an asked position, a member that has not joined.
	ErrNotReady = status.Error(codes.Unavailable, "quartet: not ready")

	// ErrLogMismatch is returned by Consensus.Deliver when the position that a
	// store names is not in this log's history: the store must discard itself.
	ErrLogMismatch = status.Error(codes.DataLoss, "quartet: position is not in the log's history")

	// ErrLogTruncated is returned by Consensus.Deliver when the entries after
	// the position are gone: the store must fill itself from another store.
	ErrLogTruncated = status.Error(codes.OutOfRange, "quartet: position is below the kept log")

	// ErrUnknownSession is the outcome of a command whose session is not open.
	ErrUnknownSession = status.Error(codes.NotFound, "quartet: unknown session")

	// ErrStaleClaim is the outcome of a lessor's command under a claim that is
	// not the current one.
	ErrStaleClaim = status.Error(codes.FailedPrecondition, "quartet: stale claim")

	// ErrNotPrimary is returned by a lessor that holds no current claim.
	ErrNotPrimary = status.Error(codes.FailedPrecondition, "quartet: not the primary lessor")

	// ErrFollowBehind is returned by Store.Follow when the store no longer has
	// the position in memory.
	ErrFollowBehind = status.Error(codes.OutOfRange, "quartet: position is no longer in memory")
)

package edge

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/services/errs"
)

// WriteError is what the client of a proposal sees.
func WriteError(err error) error {
	switch {
	case err == nil:
		return nil
	case isCanceled(err):
		return rpctypes.ErrGRPCCanceled
	case isDeadline(err):
		// The fate is unknown: Unavailable with a text that no client retries a
		// mutation on.
		return rpctypes.ErrGRPCTimeout
	}
	return serviceError(err)
}

// ReadError is what the client of a read sees: the end of its own context, ctx,
// as it is, the gateway's limit as a time-out.
func ReadError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if own := ctx.Err(); own != nil {
		return status.FromContextError(own).Err()
	}
	if isDeadline(err) || isCanceled(err) {
		return rpctypes.ErrGRPCTimeout
	}
	return serviceError(err)
}

// serviceError turns the errors that services promise into etcd's. What is a
// status with an etcd text already goes out as it is.
func serviceError(err error) error {
	switch {
	case errors.Is(err, errs.ErrPayloadTooLarge):
		return rpctypes.ErrGRPCRequestTooLarge
	case errors.Is(err, errs.ErrTooManyRequests):
		return errs.ErrRequestTooManyRequests
	case errors.Is(err, errs.ErrStopped):
		return rpctypes.ErrGRPCStopped
	case errors.Is(err, errs.ErrNoLeader):
		return rpctypes.ErrGRPCNoLeader
	case errors.Is(err, errs.ErrNotLeader), errors.Is(err, errs.ErrNotPrimary):
		return rpctypes.ErrGRPCLeaderChanged
	case errors.Is(err, errs.ErrUnknownSession):
		return rpctypes.ErrGRPCTimeout
	}
	s, ok := status.FromError(err)
	if !ok {
		return status.Error(codes.Unknown, err.Error())
	}
	if known := errs.FromText(s.Message()); status.Code(known) != codes.Unknown {
		return known
	}
	if s.Code() == codes.Unavailable || s.Code() == codes.Internal {
		// A daemon behind is not reachable: another endpoint may do better.
		return rpctypes.ErrGRPCUnhealthy
	}
	return err
}

func isCanceled(err error) bool {
	return errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled
}

func isDeadline(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded
}

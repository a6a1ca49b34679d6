package errs

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// FromText returns the status error that etcd answers with for the given
// error text, nil for "". A text that is not etcd's comes back with
// codes.Unknown, as etcd does for its own unmapped errors.
func FromText(text string) error {
	if text == "" {
		return nil
	}
	if err, ok := byText[text]; ok {
		return err
	}
	return status.Error(codes.Unknown, text)
}

// Text is the text of err as FromText takes it: a status' message, else the
// error's own text, "" for nil.
func Text(err error) string {
	if err == nil {
		return ""
	}
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

// Two texts go out with codes.Unknown in etcd (its server maps them to the
// client's error type, which carries no status); clients match the text.
var (
	ErrMemberNotEnoughStarted = status.Error(codes.Unknown, status.Convert(rpctypes.ErrGRPCMemberNotEnoughStarted).Message())
	ErrRequestTooManyRequests = status.Error(codes.Unknown, status.Convert(rpctypes.ErrGRPCRequestTooManyRequests).Message())
)

var byText = index(
	rpctypes.ErrGRPCEmptyKey, rpctypes.ErrGRPCKeyNotFound, rpctypes.ErrGRPCValueProvided, rpctypes.ErrGRPCLeaseProvided,
	rpctypes.ErrGRPCTooManyOps, rpctypes.ErrGRPCDuplicateKey, rpctypes.ErrGRPCInvalidSortOption,
	rpctypes.ErrGRPCCompacted, rpctypes.ErrGRPCFutureRev, rpctypes.ErrGRPCNoSpace,
	rpctypes.ErrGRPCLeaseNotFound, rpctypes.ErrGRPCLeaseExist, rpctypes.ErrGRPCLeaseTTLTooLarge,
	rpctypes.ErrGRPCMemberExist, rpctypes.ErrGRPCPeerURLExist, ErrMemberNotEnoughStarted, rpctypes.ErrGRPCMemberBadURLs,
	rpctypes.ErrGRPCMemberNotFound, rpctypes.ErrGRPCMemberNotLearner, rpctypes.ErrGRPCLearnerNotReady, rpctypes.ErrGRPCTooManyLearners,
	rpctypes.ErrGRPCRequestTooLarge, ErrRequestTooManyRequests,
	rpctypes.ErrGRPCRootUserNotExist, rpctypes.ErrGRPCRootRoleNotExist, rpctypes.ErrGRPCUserAlreadyExist, rpctypes.ErrGRPCUserEmpty,
	rpctypes.ErrGRPCUserNotFound, rpctypes.ErrGRPCRoleAlreadyExist, rpctypes.ErrGRPCRoleNotFound, rpctypes.ErrGRPCRoleEmpty,
	rpctypes.ErrGRPCAuthFailed, rpctypes.ErrGRPCPermissionNotGiven, rpctypes.ErrGRPCPermissionDenied, rpctypes.ErrGRPCRoleNotGranted,
	rpctypes.ErrGRPCPermissionNotGranted, rpctypes.ErrGRPCAuthNotEnabled, rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCInvalidAuthMgmt,
	rpctypes.ErrGRPCAuthOldRevision,
	rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCNotLeader, rpctypes.ErrGRPCLeaderChanged, rpctypes.ErrGRPCNotCapable, rpctypes.ErrGRPCStopped,
	rpctypes.ErrGRPCTimeout, rpctypes.ErrGRPCTimeoutDueToLeaderFail, rpctypes.ErrGRPCTimeoutDueToConnectionLost,
	rpctypes.ErrGRPCTimeoutWaitAppliedIndex, rpctypes.ErrGRPCUnhealthy, rpctypes.ErrGRPCCorrupt, rpctypes.ErrGRPCNotSupportedForLearner,
	rpctypes.ErrGRPCBadLeaderTransferee,
	ErrUnknownSession, ErrStaleClaim,
)

func index(errors ...error) map[string]error {
	m := make(map[string]error, len(errors))
	for _, err := range errors {
		m[status.Convert(err).Message()] = err
	}
	return m
}

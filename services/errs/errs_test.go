package errs_test

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/services/errs"
)

func TestFromTextIsInverseOfText(t *testing.T) {
	for _, err := range []error{rpctypes.ErrGRPCCompacted, rpctypes.ErrGRPCLeaseNotFound, errs.ErrStaleClaim, errs.ErrUnknownSession} {
		if got := errs.FromText(errs.Text(err)); !errors.Is(got, err) {
			t.Errorf("FromText(Text(%v)) = %v", err, got)
		}
	}
	if errs.FromText("") != nil || errs.Text(nil) != "" {
		t.Error("no error must stay no error")
	}
}

func TestUnmappedTextIsUnknown(t *testing.T) {
	err := errs.FromText("not a primary lessor")
	if status.Code(err) != codes.Unknown || status.Convert(err).Message() != "not a primary lessor" {
		t.Errorf("got %v", err)
	}
}

func TestTextsThatEtcdSendsAsUnknown(t *testing.T) {
	for text, want := range map[string]codes.Code{
		"etcdserver: too many requests":                                         codes.Unknown,
		"etcdserver: re-configuration failed due to not enough started members": codes.Unknown,
		"etcdserver: mvcc: required revision has been compacted":                codes.OutOfRange,
	} {
		if got := status.Code(errs.FromText(text)); got != want {
			t.Errorf("%q: code %v, want %v", text, got, want)
		}
	}
}

func TestSentinelsSurviveTheWire(t *testing.T) {
	wire := status.FromProto(status.Convert(errs.ErrNotLeader).Proto()).Err()
	if !errors.Is(wire, errs.ErrNotLeader) || errors.Is(wire, errs.ErrNotPrimary) {
		t.Errorf("%v does not compare by code and text", wire)
	}
}

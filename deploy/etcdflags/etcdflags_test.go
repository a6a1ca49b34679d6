package etcdflags_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/quartet-kv/quartet/deploy/etcdflags"
)

func parse(t *testing.T, environ []string, args ...string) (etcdflags.Config, error) {
	t.Helper()
	fs := pflag.NewFlagSet("member", pflag.ContinueOnError)
	f := etcdflags.Register(fs)
	if err := fs.Parse(args); err != nil {
		return etcdflags.Config{}, err
	}
	return f.Config(environ)
}

func TestBothSpellingsAndDefaults(t *testing.T) {
	c, err := parse(t, nil, "--name", "m1", "--heartbeat-interval=200", "--election-timeout", "2000")
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "m1" || c.DataDir != "m1.etcd" || c.Heartbeat != 200*time.Millisecond || c.Election != 2*time.Second {
		t.Errorf("got %+v", c)
	}
	if !slices.Equal(c.ListenClient, []string{"localhost:2379"}) || len(c.Members) != 1 || c.Members[0].Name != "m1" {
		t.Errorf("defaults: %+v", c)
	}
}

func TestEnvironmentTwins(t *testing.T) {
	c, err := parse(t, []string{"ETCD_NAME=m2", "ETCD_INITIAL_CLUSTER=m1=http://127.0.0.1:1,m2=http://localhost:2380", "PATH=x"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "m2" || len(c.Members) != 2 || etcdflags.Address(c.Members[0].PeerURLs[0]) != "127.0.0.1:1" {
		t.Errorf("got %+v", c)
	}
	if _, err := parse(t, []string{"ETCD_NAME=m2"}, "--name", "m1"); err == nil || !strings.Contains(err.Error(), "shadowed") {
		t.Errorf("a flag beside its variable: %v", err)
	}
}

func TestUnknownFlagIsAnError(t *testing.T) {
	if _, err := parse(t, nil, "--no-such-flag=1"); err == nil {
		t.Error("accepted")
	}
}

func TestIgnoredFlagsAreNamed(t *testing.T) {
	c, err := parse(t, []string{"ETCD_MAX_WALS=3"}, "--snapshot-count=5", "--pre-vote")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--snapshot-count=5", "--pre-vote=true", "--max-wals=3"} {
		if !slices.Contains(c.WithoutEffect, want) {
			t.Errorf("%s is not in %v", want, c.WithoutEffect)
		}
	}
}

func TestEveryViolationAtOnce(t *testing.T) {
	_, err := parse(t, nil, "--cert-file=x", "--election-timeout=100", "--listen-client-urls=ftp://127.0.0.1:1",
		"--listen-peer-urls=http://example.com:1", "--initial-cluster-state=odd", "--initial-cluster=other=http://127.0.0.1:1", "--max-txn-ops=0", "--log-level=loud")
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"--cert-file=x", "--election-timeout=100", "ftp://", "expected IP", "--initial-cluster-state=odd", "couldn't find local name", "--max-txn-ops=0", "--log-level=loud"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in:\n%v", want, err)
		}
	}
}

func TestRefusedFlagAtItsDefaultIsAccepted(t *testing.T) {
	if _, err := parse(t, nil, "--auth-token=simple", "--auto-compaction-retention=0"); err != nil {
		t.Error(err)
	}
}

func TestExistingNeedsData(t *testing.T) {
	dir := t.TempDir()
	if _, err := parse(t, nil, "--initial-cluster-state=existing", "--data-dir", filepath.Join(dir, "none")); err == nil {
		t.Error("accepted without data")
	}
	data := filepath.Join(dir, "some")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := parse(t, nil, "--initial-cluster-state=existing", "--data-dir", data); err != nil {
		t.Error(err)
	}
}

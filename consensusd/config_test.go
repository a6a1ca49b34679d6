package consensusd_test

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/quartet-kv/quartet/consensusd"
)

func TestFlagsMakeTheConfig(t *testing.T) {
	cfg := consensusd.DefaultConfig()
	fs := pflag.NewFlagSet("consensusd", pflag.ContinueOnError)
	cfg.AddFlags(fs)
	err := fs.Parse([]string{
		"--name=a", "--data-dir=d", "--heartbeat-interval=50", "--election-timeout=700", "--cluster-token=t",
		"--member=name=a,peer=http://h:1,peer=http://h:2,store=h:3,lease=h:4", "--member", "name=b,peer=http://h:5,consensus=h:6",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	if cfg.HeartbeatInterval != 50*time.Millisecond || cfg.ElectionTimeout != 700*time.Millisecond || len(cfg.Members) != 2 {
		t.Errorf("got %+v", cfg)
	}
	if m := cfg.Members[0]; len(m.PeerURLs) != 2 || m.Store != "h:3" || m.Lease != "h:4" {
		t.Errorf("first member %+v", m)
	}
}

func TestMemberFlagRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, value := range []string{"name=a", "peer=http://h:1", "name=a,peer=http://h:1,colour=red", "name", "name=a,peer="} {
		cfg := consensusd.DefaultConfig()
		fs := pflag.NewFlagSet("consensusd", pflag.ContinueOnError)
		cfg.AddFlags(fs)
		if err := fs.Parse([]string{"--member=" + value}); err == nil {
			t.Errorf("--member=%s was taken", value)
		}
	}
}

func TestValidateReportsEveryViolation(t *testing.T) {
	err := (&consensusd.Config{LogTailEntries: -1, LogTailBytes: -1}).Validate()
	for _, flag := range []string{
		"--data-dir", "--heartbeat-interval", "--payload-bytes-max", "--uncommitted-bytes-max", "--inflight-bytes-max",
		"--segment-bytes", "--log-bytes-max", "--log-tail-entries", "--log-tail-bytes", "--member",
	} {
		if err == nil || !strings.Contains(err.Error(), flag+"=") && !strings.Contains(err.Error(), flag+" ") && !strings.Contains(err.Error(), flag+":") {
			t.Errorf("%s is not named in %v", flag, err)
		}
	}
}

package harness

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	dialWithin = 5 * time.Second
	askWithin  = 2 * time.Second // one try of a readiness read
)

// Client returns a client of the given endpoints, of all of them if none are
// given. The caller closes it.
func (c *Cluster) Client(endpoints ...string) (*clientv3.Client, error) {
	if len(endpoints) == 0 {
		endpoints = c.Endpoints()
	}
	return clientv3.New(clientv3.Config{
		Endpoints:   endpoints,
		DialTimeout: dialWithin,
		Logger:      zap.NewNop(),
	})
}

func (c *Cluster) waitServes(ctx context.Context, endpoint string) error {
	cl, err := c.Client(endpoint)
	if err != nil {
		return err
	}
	defer cl.Close()
	return waitFor(ctx, "linearizable read at "+endpoint, func() (bool, error) {
		try, cancel := context.WithTimeout(ctx, askWithin)
		defer cancel()
		_, err := cl.Get(try, "harness-ready")
		if err == nil {
			return true, nil
		}
		return false, c.checkRunning()
	})
}

// Etcdctl runs etcdctl against all endpoints and returns its standard output.
// The error holds its standard error.
func (c *Cluster) Etcdctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "etcdctl", args...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3", "ETCDCTL_ENDPOINTS="+strings.Join(c.Endpoints(), ","))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("etcdctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// Leader returns the leader: its number, from 1, and the endpoint of the member
// or gateway with that number (empty if there is none).
func (c *Cluster) Leader(ctx context.Context) (int, string, error) {
	cl, err := c.Client()
	if err != nil {
		return 0, "", err
	}
	defer cl.Close()
	list, err := cl.MemberList(ctx)
	if err != nil {
		return 0, "", err
	}
	for _, ep := range c.Endpoints() {
		status, err := cl.Status(ctx, ep)
		if err != nil || status.Leader == 0 {
			continue
		}
		for _, m := range list.Members {
			if m.ID != status.Leader {
				continue
			}
			var n int
			if _, err := fmt.Sscanf(m.Name[strings.LastIndexAny(m.Name, "-m")+1:], "%d", &n); err != nil {
				return 0, "", fmt.Errorf("member name %q ends in no number", m.Name)
			}
			if n <= len(c.members) {
				return n, c.members[n-1].Endpoint, nil
			}
			return n, "", nil
		}
	}
	return 0, "", fmt.Errorf("no endpoint names a leader")
}

// WaitHealthy waits until the named process serves: a daemon of split says so by
// the gRPC health service on its address (NATS by taking a connection), any
// other process by a linearizable read on every endpoint.
func (c *Cluster) WaitHealthy(ctx context.Context, name string) error {
	p := c.process(name)
	switch {
	case p == nil:
		return fmt.Errorf("no process %q", name)
	case p.Address == "":
		return c.WaitReady(ctx)
	case strings.HasPrefix(name, "nats"):
		return waitFor(ctx, "connection to "+name, func() (bool, error) {
			conn, err := net.DialTimeout("tcp", p.Address, dialWithin)
			if err != nil {
				return false, nil
			}
			return true, conn.Close()
		})
	}
	conn, err := grpc.NewClient(p.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	return waitFor(ctx, "health of "+name, func() (bool, error) {
		try, cancel := context.WithTimeout(ctx, askWithin)
		defer cancel()
		resp, err := healthpb.NewHealthClient(conn).Check(try, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		return err == nil && resp.Status == healthpb.HealthCheckResponse_SERVING, nil
	})
}

package allinone

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quartet-kv/quartet/services/dial"
)

const (
	// readyTry bounds one linearizable read; readyPause is between tries.
	readyTry   = 5 * time.Second
	readyPause = 10 * time.Millisecond
)

// WaitReady returns when a linearizable read works at every client address, or
// with the last refusal when ctx ends.
func WaitReady(ctx context.Context, addrs []string) error {
	dialer := dial.NewGRPC()
	defer dialer.Close()
	for _, addr := range addrs {
		conn, err := dialer.Dial(addr, dial.Control)
		if err != nil {
			return err
		}
		kv := etcdserverpb.NewKVClient(conn)
		for {
			tryCtx, cancel := context.WithTimeout(ctx, readyTry)
			_, err := kv.Range(tryCtx, &etcdserverpb.RangeRequest{Key: []byte("health"), KeysOnly: true, Limit: 1})
			cancel()
			if err == nil {
				break
			}
			select {
			case <-time.After(readyPause):
			case <-ctx.Done():
				return fmt.Errorf("%s is not ready: %w", addr, err)
			}
		}
	}
	return nil
}

package consensusd_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/quartet-kv/quartet/proto/consensuspb"
)

// BenchmarkPropose is the way of a payload from a Propose stream to delivery
// by the leader, members in one process and logs on disk, with a window of
// requests under way.
func BenchmarkPropose(b *testing.B) {
	for _, members := range []int{1, 3} {
		for _, perRequest := range []int{1, 32} {
			b.Run(fmt.Sprintf("members=%d/payloads=%d", members, perRequest), func(b *testing.B) {
				benchmarkPropose(b, members, perRequest, 16)
			})
		}
		b.Run(fmt.Sprintf("members=%d/alone", members), func(b *testing.B) { benchmarkPropose(b, members, 1, 1) })
	}
}

func benchmarkPropose(b *testing.B, members, perRequest, window int) {
	c := newBenchCluster(b, members)
	lead := c.leader()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	proposals, err := lead.client().Propose(ctx)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := proposals.Recv(); err != nil {
		b.Fatal(err)
	}
	deliveries, err := lead.client().Deliver(ctx)
	if err != nil {
		b.Fatal(err)
	}
	if err := deliveries.Send(&consensuspb.DeliverRequest{Start: &consensuspb.DeliverStart{Store: "bench"}}); err != nil {
		b.Fatal(err)
	}
	req := &consensuspb.ProposeRequest{}
	for range perRequest {
		req.Payloads = append(req.Payloads, make([]byte, 300))
	}
	b.ReportAllocs()
	b.ResetTimer()
	sent, seen := 0, 0
	for seen < b.N {
		for sent < b.N && sent-seen < window*perRequest {
			if err := proposals.Send(req); err != nil {
				b.Fatal(err)
			}
			sent += perRequest
		}
		r, err := deliveries.Recv()
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range r.Entries {
			if len(e.Payload) > 0 {
				seen++
			}
		}
	}
}

func BenchmarkReadIndex(b *testing.B) {
	c := newBenchCluster(b, 3)
	lead := c.leader()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := lead.client().ReadIndex(context.Background(), &consensuspb.ReadIndexRequest{}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

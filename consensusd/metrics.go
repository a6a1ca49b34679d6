package consensusd

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quartet-kv/quartet/consensusd/internal/deliver"
	"github.com/quartet-kv/quartet/consensusd/internal/node"
	"github.com/quartet-kv/quartet/consensusd/internal/transport"
)

// metrics are all of the daemon's.
type metrics struct {
	node      node.Metrics
	deliver   deliver.Metrics
	transport transport.Metrics
}

func newMetrics(r prometheus.Registerer) metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "quartet_consensusd_" + name, Help: help})
		r.MustRegister(c)
		return c
	}
	byClass := func(name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "quartet_consensusd_" + name, Help: help}, []string{"class"})
		r.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "quartet_consensusd_" + name, Help: help})
		r.MustRegister(g)
		return g
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "quartet_consensusd_" + name, Help: help, Buckets: buckets})
		r.MustRegister(h)
		return h
	}
	return metrics{
		node: node.Metrics{
			Proposed:       counter("proposed_entries_total", "Payloads taken for the log."),
			Refused:        counter("refused_requests_total", "Requests of Propose that were refused."),
			Reads:          counter("read_index_total", "Read indexes asked."),
			ReadRounds:     counter("read_index_rounds_total", "Rounds that answered read indexes."),
			LeaderChanges:  counter("leader_changes_total", "Changes of the known leader."),
			AppendSeconds:  histogram("append_seconds", "Making one batch durable.", prometheus.ExponentialBuckets(50e-6, 2, 16)),
			AppendEntries:  histogram("append_batch_entries", "Entries made durable at once.", prometheus.ExponentialBuckets(1, 2, 13)),
			Term:           gauge("term", "Raft term."),
			Commit:         gauge("commit_index", "Highest index known to be committed."),
			IsLeader:       gauge("is_leader", "1 while this member leads."),
			LogFirst:       gauge("log_first_index", "First index that is kept."),
			LogLast:        gauge("log_last_index", "Last index of the log."),
			MessagesLate:   counter("peer_messages_late_total", "Messages of peers that waited for the loop."),
			SnapshotWanted: counter("snapshots_wanted_total", "Times that a member needed truncated entries."),
		},
		deliver: deliver.Metrics{
			Entries: counter("delivered_entries_total", "Entries sent to stores."),
			Streams: gauge("deliver_streams", "Attached stores."),
		},
		transport: transport.Metrics{
			Sent:      byClass("peer_sent_messages_total", "Messages sent to peers."),
			SentBytes: byClass("peer_sent_bytes_total", "Bytes of messages sent to peers."),
			Dropped:   byClass("peer_dropped_messages_total", "Messages that did not fit or had no stream."),
		},
	}
}

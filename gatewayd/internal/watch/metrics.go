package watch

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the service's, and those of etcd's that count the same.
type metrics struct {
	streams, ringBytes, ringRevisions prometheus.Gauge
	watchers                          [stateCount]prometheus.Gauge
	events, refused, gaps             prometheus.Counter
	historyReads, historyFailures     prometheus.Counter

	etcdStreams, etcdWatchers, etcdSlow prometheus.Gauge
	etcdEvents                          prometheus.Counter

	pending atomic.Int64 // events in outboxes
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r) // a nil Registerer registers nothing
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		streams:         gauge("quartet_gatewayd_watch_streams", "Watch calls of clients."),
		ringBytes:       gauge("quartet_gatewayd_watch_ring_bytes", "Bytes of recent events kept in memory."),
		ringRevisions:   gauge("quartet_gatewayd_watch_ring_revisions", "Recent revisions kept in memory."),
		events:          counter("quartet_gatewayd_watch_events_total", "Events given to watchers."),
		refused:         counter("quartet_gatewayd_watch_refused_total", "Times that a client's outbox was full and a watcher became a victim."),
		gaps:            counter("quartet_gatewayd_watch_gaps_total", "Times that batches were missed and watchers went to history."),
		historyReads:    counter("quartet_gatewayd_watch_history_reads_total", "Reads of history at a store."),
		historyFailures: counter("quartet_gatewayd_watch_history_failures_total", "Reads of history that failed and were repeated."),

		etcdStreams:  gauge("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams."),
		etcdWatchers: gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers."),
		etcdSlow:     gauge("etcd_debugging_mvcc_slow_watcher_total", "Total number of unsynced slow watchers."),
		etcdEvents:   counter("etcd_debugging_mvcc_events_total", "Total number of events sent by this member."),
	}
	byState := f.NewGaugeVec(prometheus.GaugeOpts{Name: "quartet_gatewayd_watch_watchers", Help: "Watchers by state."}, []string{"state"})
	for s, name := range [stateCount]string{synced: "synced", unsynced: "unsynced", reading: "reading", victim: "victim"} {
		if name != "" {
			m.watchers[s] = byState.WithLabelValues(name)
		}
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "etcd_debugging_mvcc_pending_events_total", Help: "Total number of pending events to be sent."},
		func() float64 { return float64(m.pending.Load()) })
	return m
}

// observe copies the hub's sizes.
func (m *metrics) observe(h *Hub) {
	m.streams.Set(float64(len(h.streams)))
	m.ringBytes.Set(float64(h.ring.bytes))
	m.ringRevisions.Set(float64(len(h.ring.entries)))
	all := 0
	for s, g := range m.watchers {
		if g != nil {
			g.Set(float64(h.states[s]))
			all += h.states[s]
		}
	}
	m.etcdStreams.Set(float64(len(h.streams)))
	m.etcdWatchers.Set(float64(all))
	m.etcdSlow.Set(float64(all - h.states[synced]))
}

// given counts events that were put into outboxes.
func (m *metrics) given(events int) {
	if events > 0 {
		m.pending.Add(int64(events))
		m.events.Add(float64(events))
		m.etcdEvents.Add(float64(events))
	}
}

package stored

import "github.com/prometheus/client_golang/prometheus"

// metrics of a store, as quartet_stored_<noun>_<unit>.
type metrics struct {
	entries, commands, revisions             prometheus.Counter
	applySeconds, commitSeconds, syncSeconds prometheus.Histogram
	applied, synced, revision                prometheus.Gauge
	outcomeBytes, outcomeStreams             prometheus.Gauge
	outcomesLost                             prometheus.Counter
	published, publishFailed                 prometheus.Counter
	reads, scans, histories                  prometheus.Counter
	readsWaiting                             prometheus.Gauge
	purgedVersions                           prometheus.Counter
	keyspaceBytes, keyspaceComplete          prometheus.GaugeFunc
}

// newMetrics registers them; a nil registerer keeps them to itself.
func newMetrics(r prometheus.Registerer, keyspaceBytes, keyspaceComplete func() float64) *metrics {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "quartet", Subsystem: "stored", Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "quartet", Subsystem: "stored", Name: name, Help: help})
		r.MustRegister(g)
		return g
	}
	seconds := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "quartet", Subsystem: "stored", Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.00005, 2, 18),
		})
		r.MustRegister(h)
		return h
	}
	asked := func(name, help string, f func() float64) prometheus.GaugeFunc {
		g := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "quartet", Subsystem: "stored", Name: name, Help: help}, f)
		r.MustRegister(g)
		return g
	}
	return &metrics{
		entries:          counter("entries_total", "Log entries applied."),
		commands:         counter("commands_total", "Commands and session changes applied or refused."),
		revisions:        counter("revisions_total", "Revisions made."),
		applySeconds:     seconds("apply_seconds", "Time to apply one response of Deliver."),
		commitSeconds:    seconds("commit_seconds", "Time of one commit to the engine."),
		syncSeconds:      seconds("sync_seconds", "Time of one sync of the engine."),
		applied:          gauge("applied_index", "Index applied last."),
		synced:           gauge("synced_index", "Index up to which the engine survives a power cut."),
		revision:         gauge("revision", "The store's revision."),
		outcomeBytes:     gauge("outcome_bytes", "Memory of outcomes that wait for their gateways."),
		outcomeStreams:   gauge("outcome_streams", "Outcome streams attached."),
		outcomesLost:     counter("outcomes_lost_total", "Outcomes asked for that this store does not have."),
		published:        counter("published_batches_total", "Batches published on the bus."),
		publishFailed:    counter("publish_failures_total", "Batches that went nowhere."),
		reads:            counter("reads_total", "Small reads answered."),
		scans:            counter("scans_total", "Large ranges answered."),
		histories:        counter("histories_total", "Histories asked for."),
		readsWaiting:     gauge("waiting_read_batches", "Batches of reads that wait for a position."),
		purgedVersions:   counter("purged_versions_total", "Row versions given up after compactions."),
		keyspaceBytes:    asked("keyspace_bytes", "Memory of the present generation of keys.", keyspaceBytes),
		keyspaceComplete: asked("keyspace_complete", "1 when every key is known in memory.", keyspaceComplete),
	}
}

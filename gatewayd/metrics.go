package gatewayd

import "github.com/prometheus/client_golang/prometheus"

// registerMetrics exposes what the gateway knows at the time of a scrape. Calls
// are counted by internal/edge, watchers by internal/watch, commands by
// services/session.
func registerMetrics(r prometheus.Registerer, f *face) {
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "quartet", Subsystem: "gatewayd", Name: name, Help: help}, value))
	}
	counter := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "quartet", Subsystem: "gatewayd", Name: name, Help: help}, value))
	}
	gauge("floor_revision", "Highest revision that was answered with.", func() float64 { return float64(f.edge.Floor.Revision()) })
	gauge("floor_term", "Highest raft term that was answered with.", func() float64 { return float64(f.edge.Floor.RaiseTerm(0)) })
	gauge("quorum_healthy", "1 while a quorum answers, as health checks say.", func() float64 {
		if f.quorate.Load() {
			return 1
		}
		return 0
	})
	counter("bus_pulls_total", "Times that a store was asked for what the bus did not bring.", func() float64 { return float64(f.news.Pulls()) })
	counter("keepalive_batches_total", "Messages of keep-alives to the primary lessor.", func() float64 { return float64(f.renewer.Batches()) })
}

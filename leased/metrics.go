package leased

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quartet-kv/quartet/leased/internal/lessor"
)

// newMetrics makes the daemon's metrics; a nil registerer keeps them to itself.
func newMetrics(r prometheus.Registerer) lessor.Metrics {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "quartet_leased_" + name, Help: help})
		if r != nil {
			r.MustRegister(g)
		}
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "quartet_leased_" + name, Help: help})
		if r != nil {
			r.MustRegister(c)
		}
		return c
	}
	return lessor.Metrics{
		Leases:   gauge("leases", "Leases that exist."),
		Primary:  gauge("is_primary", "1 while this lessor is primary."),
		Claims:   counter("claims_total", "Claims proposed."),
		Renewals: counter("renewals_total", "Renewals answered."),
		Expired:  counter("expired_leases_total", "Leases named in proposed expiries."),
	}
}

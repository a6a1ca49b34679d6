package session

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	commands, payloads, resent prometheus.Counter
	outcomes, lost, gaps       prometheus.Counter
	streams, stores, opened    prometheus.Counter
	inflight, queued           prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "quartet", Subsystem: "session", Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "quartet", Subsystem: "session", Name: name, Help: help})
		r.MustRegister(g)
		return g
	}
	return &metrics{
		commands: counter("commands_total", "Commands that were sent for the first time."),
		payloads: counter("payloads_total", "Payloads sent, each one log entry."),
		resent:   counter("resent_commands_total", "Commands that were sent again on a new stream."),
		outcomes: counter("outcomes_total", "Outcomes that answered a command."),
		lost:     counter("lost_commands_total", "Commands whose outcome no store has, or whose session was evicted."),
		gaps:     counter("gaps_total", "Outcomes that refused a command as beyond a gap."),
		streams:  counter("propose_streams_total", "Propose streams opened."),
		stores:   counter("outcome_streams_total", "Outcome streams opened."),
		opened:   counter("opened_total", "Sessions opened."),
		inflight: gauge("inflight_commands", "Commands that are sent and not answered."),
		queued:   gauge("queued_commands", "Commands that wait to be sent."),
	}
}

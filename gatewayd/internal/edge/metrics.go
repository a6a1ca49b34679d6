package edge

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Metrics counts calls per method and code, at the price of two additions a
// call.
type Metrics struct {
	started *prometheus.CounterVec
	handled *prometheus.CounterVec
	methods sync.Map // full method → *method
}

// NewMetrics registers the counters; nil keeps them to itself.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		started: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quartet_gatewayd_calls_started_total", Help: "Client calls begun.",
		}, []string{"method"}),
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quartet_gatewayd_calls_handled_total", Help: "Client calls ended, by status code.",
		}, []string{"method", "code"}),
	}
	if r != nil {
		r.MustRegister(m.started, m.handled)
	}
	return m
}

// codesMax is one more than the highest code of gRPC.
const codesMax = 17

type method struct {
	name    string
	vec     *prometheus.CounterVec
	started prometheus.Counter
	handled [codesMax]atomic.Pointer[prometheus.Counter]
}

// start counts a call that begins. Only registered methods get here, so the
// number of labels is bounded.
func (m *Metrics) start(full string) *method {
	v, ok := m.methods.Load(full)
	if !ok {
		v, _ = m.methods.LoadOrStore(full, &method{name: full, vec: m.handled, started: m.started.WithLabelValues(full)})
	}
	found := v.(*method)
	found.started.Inc()
	return found
}

func (m *method) end(err error) {
	code := codes.OK
	if err != nil {
		code = status.FromContextError(err).Code()
		if s, ok := status.FromError(err); ok {
			code = s.Code()
		}
	}
	if code >= codesMax {
		code = codes.Unknown
	}
	counter := m.handled[code].Load()
	if counter == nil {
		fresh := m.vec.WithLabelValues(m.name, code.String())
		counter = &fresh
		m.handled[code].Store(counter)
	}
	(*counter).Inc()
}

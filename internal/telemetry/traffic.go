package telemetry

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxCode bounds the label: a program may answer with any three digits.
const maxCode = 600

// otherCode stands for what is no status of HTTP.
const otherCode = "other"

// traffic has the counters of each service at hand, so that counting a request looks up
// one name and allocates nothing.
type traffic struct {
	mu       sync.RWMutex
	services map[string]*serviceTraffic
}

// serviceTraffic is what is counted of one service's requests.
type serviceTraffic struct {
	codes             [maxCode + 1]atomic.Pointer[prometheus.Counter]
	durations         prometheus.Observer
	bytesIn, bytesOut prometheus.Counter
}

// Served counts one request to an instance of a service, or, with "", to what is none.
func (m *Metrics) Served(service string, status int, took time.Duration, in, out int64) {
	t := m.traffic.find(service)
	if t == nil {
		t = m.addService(service)
	}
	if status < 100 || status > maxCode {
		status = maxCode
	}
	counter := t.codes[status].Load()
	if counter == nil {
		counter = m.addCode(service, status)
		t.codes[status].Store(counter) // everybody finds the same one
	}
	(*counter).Inc()
	t.durations.Observe(took.Seconds())
	if in > 0 {
		t.bytesIn.Add(float64(in))
	}
	if out > 0 {
		t.bytesOut.Add(float64(out))
	}
}

func (t *traffic) find(service string) *serviceTraffic {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.services[service]
}

func (m *Metrics) addService(service string) *serviceTraffic {
	t := &m.traffic
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.services[service]; s != nil {
		return s
	}
	if t.services == nil {
		t.services = make(map[string]*serviceTraffic)
	}
	s := &serviceTraffic{
		durations: m.durations.WithLabelValues(service),
		bytesIn:   m.bytesIn.WithLabelValues(service),
		bytesOut:  m.bytesOut.WithLabelValues(service),
	}
	t.services[service] = s
	return s
}

func (m *Metrics) addCode(service string, status int) *prometheus.Counter {
	code := strconv.Itoa(status)
	if status == maxCode {
		code = otherCode
	}
	counter := m.requests.WithLabelValues(service, code)
	return &counter
}

func (t *traffic) forget(services []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range services {
		delete(t.services, name)
	}
}

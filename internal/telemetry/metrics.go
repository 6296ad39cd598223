// Package telemetry counts what happens to requests and instances: in metrics of Prometheus,
// in records of wakes, and in what each instance has used.
package telemetry

import (
	"bytes"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"tenement"
)

// Every metric, with its labels, stands in this file, and in docs/metrics.md. A label has a
// bounded number of values; what is about single instances is there for awake ones only.

// Names of labels. An instance is a service and a name: Prometheus has the label "instance"
// for what it scrapes.
const (
	labelService = "service"
	labelKind    = "kind"
	labelName    = "name"
	labelCode    = "code"
	labelCause   = "cause"
	labelOutcome = "outcome"
	labelPhase   = "phase"
	labelReason  = "reason"
	labelState   = "state"
	labelVersion = "version"
)

// The phases of a wake.
const (
	phaseQueue     = "queue"
	phaseSpawn     = "spawn"
	phaseReady     = "ready"
	phaseFirstByte = "first_byte"
)

// Upper bounds of the histograms, in seconds.
var (
	requestBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	wakeBuckets    = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
)

// vectors are the metrics of what happens, as it happens.
type vectors struct {
	requests     *prometheus.CounterVec
	durations    *prometheus.HistogramVec
	bytesIn      *prometheus.CounterVec
	bytesOut     *prometheus.CounterVec
	wakes        *prometheus.CounterVec
	wakePhases   *prometheus.HistogramVec
	starts       *prometheus.CounterVec
	crashes      *prometheus.CounterVec
	oomKills     *prometheus.CounterVec
	sleeps       *prometheus.CounterVec
	recordsLost  prometheus.Counter
	alertsSent   *prometheus.CounterVec
	alertsFailed *prometheus.CounterVec
	alertsLost   prometheus.Counter
	registration []prometheus.Collector
}

func newVectors() *vectors {
	v := &vectors{}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		v.registration = append(v.registration, c)
		return c
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		v.registration = append(v.registration, h)
		return h
	}
	v.requests = counter("tenement_requests_total", "Requests, by the status of the answer; 499: the client left before there was one.", labelService, labelCode)
	v.durations = histogram("tenement_request_duration_seconds", "From a request's header to the end of its response.", requestBuckets, labelService)
	v.bytesIn = counter("tenement_request_bytes_total", "Bodies of requests, and what clients sent on upgraded connections.", labelService)
	v.bytesOut = counter("tenement_response_bytes_total", "Bodies of responses, and what clients were sent on upgraded connections.", labelService)
	v.wakes = counter("tenement_wakes_total", "Wakes that have ended: outcome ok, or the code of the error.", labelService, labelCause, labelOutcome)
	v.wakePhases = histogram("tenement_wake_phase_duration_seconds", "How long each phase of a successful wake took.", wakeBuckets, labelService, labelPhase)
	v.starts = counter("tenement_starts_total", "Processes that were started.", labelService)
	v.crashes = counter("tenement_crashes_total", "Processes that ended unasked, or were ended for a fault.", labelService)
	v.oomKills = counter("tenement_oom_kills_total", "Processes that ended because memory was short.", labelService)
	v.sleeps = counter("tenement_sleeps_total", "Processes that were ended in good order, by why.", labelService, labelReason)
	v.recordsLost = prometheus.NewCounter(prometheus.CounterOpts{Name: "tenement_wake_records_lost_total", Help: "Records of wakes that could not be kept."})
	v.alertsSent = counter("tenement_alerts_sent_total", "Alerts that their receiver has.", labelKind)
	v.alertsFailed = counter("tenement_alerts_failed_total", "Alerts that were given up: refused, or not taken for a day.", labelKind)
	v.alertsLost = prometheus.NewCounter(prometheus.CounterOpts{Name: "tenement_alerts_lost_total", Help: "Alerts for which there was no room."})
	v.registration = append(v.registration, v.recordsLost, v.alertsLost)
	return v
}

// What is asked for when the metrics are read.
var (
	descInstances = prometheus.NewDesc("tenement_instances", "Registered instances, by state.", []string{labelState}, nil)
	descHeld      = prometheus.NewDesc("tenement_held_requests", "Requests that wait for an instance to be ready.", nil, nil)
	descLogBytes  = prometheus.NewDesc("tenement_log_bytes_total", "What instances have printed.", nil, nil)
	descSpansLost = prometheus.NewDesc("tenement_trace_spans_lost_total", "Spans that could not be sent to the collector.", nil, nil)
	descBuild     = prometheus.NewDesc("tenement_build_info", "Always 1; the version is a label.", []string{labelVersion}, nil)

	descCPU      = prometheus.NewDesc("tenement_instance_cpu_seconds_total", "Processor time of an awake instance, all its processes together.", []string{labelService, labelName}, nil)
	descMemory   = prometheus.NewDesc("tenement_instance_memory_bytes", "Memory of an awake instance, all its processes together.", []string{labelService, labelName}, nil)
	descStorage  = prometheus.NewDesc("tenement_instance_storage_bytes", "What the data of an awake instance took on the disk at the last look.", []string{labelService, labelName}, nil)
	descRequests = prometheus.NewDesc("tenement_instance_requests_total", "Requests to an awake instance.", []string{labelService, labelName}, nil)

	descriptions = []*prometheus.Desc{descInstances, descHeld, descLogBytes, descSpansLost, descBuild, descCPU, descMemory, descStorage, descRequests}
)

// Sources are asked when the metrics are read. All are required and called concurrently.
type Sources struct {
	Version   string
	Instances func() (map[tenement.State]int, error) // registered ones, in each state
	Held      func() int                             // requests that wait
	LogBytes  func() int64                           // taken from instances so far
	SpansLost func() int64
	Ledger    func() *Ledger // has just looked at all that is awake
}

// Metrics is every metric. Its methods may be called concurrently.
type Metrics struct {
	*vectors
	sources  Sources
	registry *prometheus.Registry
	traffic  traffic
}

// New makes the metrics, in a registry of their own.
func New(s Sources) *Metrics {
	m := &Metrics{vectors: newVectors(), sources: s, registry: prometheus.NewRegistry()}
	m.registry.MustRegister(m.registration...)
	m.registry.MustRegister(m,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Text is all metrics in the text format 0.0.4 of Prometheus.
func (m *Metrics) Text() ([]byte, error) {
	families, err := m.registry.Gather()
	if err != nil {
		return nil, &tenement.Error{Code: tenement.CodeInternal, Op: "gather metrics", Err: err}
	}
	var text bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			return nil, fmt.Errorf("write metrics: %w", err)
		}
	}
	return text.Bytes(), nil
}

// TextType is the media type of what [Metrics.Text] gives.
const TextType = "text/plain; version=0.0.4; charset=utf-8"

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range descriptions {
		out <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counter := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
	}
	gauge(descBuild, 1, m.sources.Version)
	gauge(descHeld, float64(m.sources.Held()))
	counter(descLogBytes, float64(m.sources.LogBytes()))
	counter(descSpansLost, float64(m.sources.SpansLost()))
	if counts, err := m.sources.Instances(); err == nil { // else all others are wanted all the more
		for _, state := range tenement.States() {
			gauge(descInstances, float64(counts[state]), state.String())
		}
	}
	m.sources.Ledger().Each(func(id tenement.InstanceID, u Account) {
		counter(descRequests, float64(u.Requests), id.Service, id.Name)
		if u.Alive {
			counter(descCPU, u.CPU.Seconds(), id.Service, id.Name)
			gauge(descMemory, float64(u.Memory), id.Service, id.Name)
			if u.Storage > 0 {
				gauge(descStorage, float64(u.Storage), id.Service, id.Name)
			}
		}
	})
}

// Woken counts a wake that has ended.
func (m *Metrics) Woken(w *tenement.WakeRecord) {
	service := w.Instance.Service
	m.wakes.WithLabelValues(service, string(w.Cause), w.Outcome).Inc()
	if w.Outcome != tenement.WakeOK {
		return
	}
	m.wakePhases.WithLabelValues(service, phaseQueue).Observe(w.Queue.Seconds())
	m.wakePhases.WithLabelValues(service, phaseSpawn).Observe(w.Spawn.Seconds())
	m.wakePhases.WithLabelValues(service, phaseReady).Observe(w.Ready.Seconds())
}

// FirstByte counts the first response after a wake.
func (m *Metrics) FirstByte(id tenement.InstanceID, took time.Duration) {
	m.wakePhases.WithLabelValues(id.Service, phaseFirstByte).Observe(took.Seconds())
}

// Started counts a process.
func (m *Metrics) Started(id tenement.InstanceID) { m.starts.WithLabelValues(id.Service).Inc() }

// Crashed counts the end of a process that nobody asked for.
func (m *Metrics) Crashed(id tenement.InstanceID) { m.crashes.WithLabelValues(id.Service).Inc() }

// Slept counts the end of a process in good order; reason has few values.
func (m *Metrics) Slept(id tenement.InstanceID, reason string) {
	m.sleeps.WithLabelValues(id.Service, reason).Inc()
}

// OutOfMemory counts an end for want of memory, besides what else it is.
func (m *Metrics) OutOfMemory(id tenement.InstanceID) { m.oomKills.WithLabelValues(id.Service).Inc() }

// Lost counts records of wakes that could not be kept.
func (m *Metrics) Lost(records int) { m.recordsLost.Add(float64(records)) }

// AlertSent counts an alert that its receiver has.
func (m *Metrics) AlertSent(kind tenement.AlertKind) {
	m.alertsSent.WithLabelValues(string(kind)).Inc()
}

// AlertFailed counts an alert that was given up.
func (m *Metrics) AlertFailed(kind tenement.AlertKind) {
	m.alertsFailed.WithLabelValues(string(kind)).Inc()
}

// AlertsLost counts alerts for which there was no room.
func (m *Metrics) AlertsLost(n int) { m.alertsLost.Add(float64(n)) }

// Forget has the series of services disappear that are not there any more.
func (m *Metrics) Forget(services []string) {
	m.traffic.forget(services)
	for _, name := range services {
		for _, c := range m.registration {
			if v, ok := c.(interface {
				DeletePartialMatch(labels prometheus.Labels) int
			}); ok {
				v.DeletePartialMatch(prometheus.Labels{labelService: name})
			}
		}
	}
}

// Package tracing tells a collector, in the words of OpenTelemetry, what happened to single
// requests and when.
package tracing

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"tenement"
)

// The fields of a request that say of which trace it is part (W3C Trace Context), as
// [http.Header] has them.
const (
	ParentField = "Traceparent"
	StateField  = "Tracestate"
)

const (
	// tracesPath is where a collector takes traces, below its address (OTLP, "OTLP/HTTP Request").
	tracesPath = "/v1/traces"

	// sendPace is how soon a span is sent.
	sendPace = time.Second

	// sendTime bounds the attempts at sending one batch; meanwhile others wait.
	sendTime = 10 * time.Second

	// flushTime bounds what Close waits for the collector.
	flushTime = 3 * time.Second

	// maxText bounds the texts of a span, most of which strangers choose, in bytes.
	maxText = 1024
)

// Config says where spans go, and which.
type Config struct {
	Endpoint string  // the collector's address, of OTLP over HTTP, to which /v1/traces is added
	Sample   float64 // which part of the traces that begin here is recorded: 0 to 1
	Version  string  // of the program
	Log      *slog.Logger
}

// Tracer records requests. Its methods may be called concurrently. A nil one records
// nothing, and leaves requests as they are.
type Tracer struct {
	sample   float64
	tracer   trace.Tracer
	provider *sdktrace.TracerProvider
	outlet   *outlet
	client   *http.Client
}

// New makes a tracer, with a goroutine that Close ends. Headers that the collector wants
// besides are in the environment: OTEL_EXPORTER_OTLP_HEADERS. That a collector is not there
// is no error.
func New(ctx context.Context, c Config) (*Tracer, error) {
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: time.Minute}, Timeout: sendTime}
	exporter, err := otlptrace.New(ctx, otlptracehttp.NewClient(
		otlptracehttp.WithEndpointURL(c.Endpoint+tracesPath),
		otlptracehttp.WithHTTPClient(client),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: sendTime / 2, MaxElapsedTime: sendTime}),
	))
	if err != nil {
		return nil, &tenement.Error{
			Code: tenement.CodeInvalid, Op: "begin tracing", Err: err,
			Hint: "see [settings.tracing], and the variables OTEL_EXPORTER_OTLP_… of the daemon's environment",
		}
	}
	t := newTracer(ctx, exporter, c)
	t.client = client
	return t, nil
}

func newTracer(ctx context.Context, to sdktrace.SpanExporter, c Config) *Tracer {
	out := newOutlet(ctx, to, c.Log)
	limits := sdktrace.NewSpanLimits()
	limits.AttributeValueLengthLimit = maxText
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(out),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // what is not to be recorded is no span
		sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithResource(resource.NewWithAttributes(semconv.SchemaURL,
			semconv.ServiceName("tenement"), semconv.ServiceVersion(c.Version))),
	)
	return &Tracer{sample: c.Sample, tracer: provider.Tracer("tenement"), provider: provider, outlet: out, client: &http.Client{}}
}

// Close sends what waits, within three seconds, and ends the tracer. No request may be under
// way.
func (t *Tracer) Close(ctx context.Context) {
	if t == nil {
		return
	}
	defer t.outlet.sender.giveUp()
	defer time.AfterFunc(flushTime, t.outlet.sender.giveUp).Stop()
	_ = t.provider.Shutdown(context.WithoutCancel(ctx)) // what could not be sent is reported
	t.client.CloseIdleConnections()
}

// Lost is how many spans could not be sent so far.
func (t *Tracer) Lost() int64 {
	if t == nil {
		return 0
	}
	return t.outlet.sender.lost.Load()
}

// Choose decides whether a trace that begins here is recorded.
func (t *Tracer) Choose() bool { return t != nil && rand.Float64() < t.sample } //nolint:gosec // no secret

// Declined reports whether parent, the value of a [ParentField], names a trace that is not
// recorded. A request with it may be sent on as it is.
func Declined(ctx context.Context, parent string) bool {
	at, ok := parentOf(ctx, []string{parent}, nil)
	return ok && !at.IsSampled()
}

// AppendUnrecorded appends a [ParentField] value for a trace that begins here and is not
// recorded, so that whoever comes after does not record it either.
func AppendUnrecorded(b []byte) []byte {
	var id [24]byte // of the trace, and of the parent; neither may be zero
	for n := 0; n < len(id); n += 8 {
		binary.BigEndian.PutUint64(id[n:], rand.Uint64()|1) //nolint:gosec // no secret
	}
	b = hex.AppendEncode(append(b, "00-"...), id[:16])
	b = hex.AppendEncode(append(b, '-'), id[16:])
	return append(b, "-00"...)
}

// parentOf is the place in a trace that the fields name; false: none, or not exactly one.
func parentOf(ctx context.Context, parent, state []string) (at trace.SpanContext, ok bool) {
	if len(parent) != 1 {
		return at, false
	}
	carrier := propagation.MapCarrier{"traceparent": parent[0], "tracestate": strings.Join(state, ",")}
	ctx = propagation.TraceContext{}.Extract(trace.ContextWithSpanContext(ctx, at), carrier)
	at = trace.SpanContextFromContext(ctx)
	return at, at.IsValid()
}

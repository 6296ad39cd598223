package tracing

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"tenement"
)

// The names of the spans within a request's own.
const (
	spanQueue = "queue" // of the wake that it has waited for: until it was its turn
	spanSpawn = "spawn" // until there was a process
	spanReady = "ready" // until that was ready
	spanProxy = "proxy" // from sending it to the process to the end of the response
)

// What the conventions of OpenTelemetry have no words for.
const (
	keyService  = attribute.Key("tenement.service")
	keyInstance = attribute.Key("tenement.instance")
)

// Request is one request and its place in a trace. It is used by one goroutine. A nil one
// does nothing.
type Request struct {
	tracer  *Tracer
	ctx     context.Context // of what happens within it
	whole   trace.Span      // nil: it is not recorded
	proxy   trace.Span      // of the last attempt at sending it; nil: there was none
	method  attribute.KeyValue
	misfits bool // what the client says of a trace makes no sense, or is nothing
	sends   int
	refused tenement.Code // why the answer is one of our own; "": it is not
}

// Begin begins the record of r, whose header was there at the time begun. With chosen, a trace
// that begins with it is recorded; otherwise it may be.
func (t *Tracer) Begin(r *http.Request, chosen bool, begun time.Time) *Request {
	if t == nil {
		return nil
	}
	parent, ok := parentOf(r.Context(), r.Header[ParentField], r.Header[StateField])
	q := &Request{tracer: t, misfits: !ok}
	if ok && !parent.IsSampled() || !ok && !chosen && !t.Choose() {
		return q
	}
	name, attributes := describe(r)
	q.ctx, q.whole = t.tracer.Start(trace.ContextWithRemoteSpanContext(r.Context(), parent), name,
		trace.WithTimestamp(begun), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attributes...))
	q.method = attributes[0]
	return q
}

// Waited records the wake that the request has waited for, with the times of its phases; w may
// be nil. Others may have waited for it before.
func (q *Request) Waited(w *tenement.WakeRecord) {
	if q == nil || q.whole == nil || w == nil {
		return
	}
	at := w.At
	for _, phase := range []struct {
		name string
		took time.Duration
	}{{spanQueue, w.Queue}, {spanSpawn, w.Spawn}, {spanReady, w.Ready}} {
		_, span := q.tracer.tracer.Start(q.ctx, phase.name, trace.WithTimestamp(at))
		at = at.Add(phase.took)
		span.End(trace.WithTimestamp(at))
	}
}

// Sends begins the record of sending the request with the header out, which is made to say of
// which trace it is part.
func (q *Request) Sends(out http.Header) {
	if q == nil {
		return
	}
	if q.misfits {
		delete(out, StateField)
	}
	if q.whole == nil {
		if q.misfits {
			out.Set(ParentField, string(AppendUnrecorded(nil)))
		}
		return
	}
	ctx, span := q.tracer.tracer.Start(q.ctx, spanProxy, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(q.method))
	if q.sends > 0 {
		span.SetAttributes(semconv.HTTPRequestResendCount(q.sends))
	}
	q.sends++
	q.proxy = span
	carrier := propagation.MapCarrier{} // the state is the client's, and stays as it is
	propagation.TraceContext{}.Inject(ctx, carrier)
	out.Set(ParentField, carrier["traceparent"])
}

// Answered records the status of the response.
func (q *Request) Answered(status int) {
	if q != nil && q.proxy != nil {
		setStatus(q.proxy, status, http.StatusBadRequest)
	}
}

// Broke records that there is no response, or not the whole of one; err is why.
func (q *Request) Broke(err error) {
	if q != nil && q.proxy != nil {
		q.proxy.SetAttributes(semconv.ErrorTypeKey.String(string(tenement.CodeOf(err))))
		q.proxy.SetStatus(codes.Error, valid(err.Error()))
		q.proxy.End()
	}
}

// Refused records why the answer is one of our own.
func (q *Request) Refused(code tenement.Code) {
	if q != nil {
		q.refused = code
	}
}

// End ends the record: the request was id's, and the answer had a status; 0: there was none.
func (q *Request) End(id tenement.InstanceID, status int) {
	if q == nil || q.whole == nil {
		return
	}
	now := trace.WithTimestamp(time.Now())
	if q.proxy != nil {
		q.proxy.End(now)
	}
	if !id.IsZero() {
		q.whole.SetAttributes(keyService.String(id.Service), keyInstance.String(id.Name))
	}
	if status == 0 {
		q.refused = tenement.CodeCanceled
	} else {
		setStatus(q.whole, status, http.StatusInternalServerError)
	}
	if q.refused != "" {
		q.whole.SetAttributes(semconv.ErrorTypeKey.String(string(q.refused)))
	}
	q.whole.End(now)
}

// setStatus notes the status of a response, which is an error of the span's own from least on.
func setStatus(span trace.Span, status, least int) {
	span.SetAttributes(semconv.HTTPResponseStatusCode(status))
	if status >= least {
		span.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(status)))
		span.SetStatus(codes.Error, "")
	}
}

// describe gives the name of a request's span and its attributes, the method first. Methods
// that nobody knows are one.
func describe(r *http.Request) (name string, attributes []attribute.KeyValue) {
	attributes = append(make([]attribute.KeyValue, 0, 8), semconv.HTTPRequestMethodKey.String(r.Method),
		semconv.URLScheme(schemeOf(r)), semconv.URLPath(valid(pathOf(r))), semconv.ServerAddress(valid(hostOf(r))))
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace:
		return r.Method, attributes
	}
	attributes[0] = semconv.HTTPRequestMethodOther
	return "HTTP", append(attributes, semconv.HTTPRequestMethodOriginal(valid(r.Method)))
}

func schemeOf(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// pathOf is the path as it was sent.
func pathOf(r *http.Request) string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(path, "/") {
		return r.URL.EscapedPath() // it was sent with a host, or is "*"
	}
	return path
}

// hostOf is the host that was asked for, without a port.
func hostOf(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		return host
	}
	return r.Host
}

// valid is text as protobuf takes it: a span that is not would have its whole batch refused.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

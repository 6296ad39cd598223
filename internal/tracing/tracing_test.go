package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"tenement"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var alice = tenement.InstanceID{Service: "api", Name: "alice"}

// recorder keeps what a tracer sends.
type recorder struct {
	*tracetest.InMemoryExporter
	tracer *Tracer
}

func newRecorder(t *testing.T, sample float64) *recorder {
	t.Helper()
	r := &recorder{InMemoryExporter: tracetest.NewInMemoryExporter()}
	r.tracer = newTracer(t.Context(), keeping{r.InMemoryExporter}, Config{Sample: sample, Log: slog.New(slog.DiscardHandler)})
	return r
}

// keeping does not forget at its end.
type keeping struct{ *tracetest.InMemoryExporter }

func (keeping) Shutdown(context.Context) error { return nil }

// spans ends the tracer and gives what it has sent, those that began first before others.
func (r *recorder) spans(t *testing.T) tracetest.SpanStubs {
	t.Helper()
	r.tracer.Close(t.Context())
	spans := r.GetSpans()
	slices.SortStableFunc(spans, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	return spans
}

func attributesOf(s tracetest.SpanStub) map[string]string {
	m := map[string]string{}
	for _, a := range s.Attributes {
		m[string(a.Key)] = a.Value.String()
	}
	return m
}

// TestRequest: each attempt at sending a request is a span of its own, which its receiver is
// told of; and each wake has its phases, at the times at which they were.
func TestRequest(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, 1)
	begun := time.Now().Add(-time.Minute)
	q := rec.tracer.Begin(httptest.NewRequest("GET", "http://alice.api.localhost:80/a%2fb?secret=1", nil), false, begun)
	w := &tenement.WakeRecord{At: begun.Add(-time.Second / 2), Queue: time.Second, Spawn: 2 * time.Second, Ready: 3 * time.Second}
	q.Waited(nil)
	q.Waited(w)
	first, second := http.Header{}, http.Header{}
	q.Sends(first)
	q.Broke(&tenement.Error{Code: tenement.CodeBroken, Err: errors.New("no answer\xff")})
	q.Sends(second)
	q.Answered(http.StatusNotFound)
	q.End(alice, http.StatusNotFound)

	spans := rec.spans(t)
	var names []string
	for _, s := range spans {
		names = append(names, s.Name)
	}
	if got := strings.Join(names, " "); got != "queue GET spawn ready proxy proxy" {
		t.Fatalf("the spans are %s", got)
	}
	whole := spans[1]
	if whole.SpanKind != trace.SpanKindServer || whole.Parent.IsValid() || !whole.StartTime.Equal(begun) || whole.Status.Code != 0 {
		t.Errorf("the request is %+v", whole)
	}
	want := map[string]string{
		"http.request.method": "GET", "http.response.status_code": "404", "url.scheme": "http", "url.path": "/a%2fb", "server.address": "alice.api.localhost",
		"tenement.service": "api", "tenement.instance": "alice",
	}
	if got := attributesOf(whole); fmt.Sprint(got) != fmt.Sprint(want) || whole.DroppedAttributes > 0 {
		t.Errorf("its attributes are %v", got)
	}
	at := w.At
	for n, took := range map[int]time.Duration{0: w.Queue, 2: w.Spawn, 3: w.Ready} {
		if s := spans[n]; s.EndTime.Sub(s.StartTime) != took || s.Parent.SpanID() != whole.SpanContext.SpanID() {
			t.Errorf("%s is %+v", s.Name, s)
		}
	}
	if !spans[0].StartTime.Equal(at) || !spans[2].StartTime.Equal(spans[0].EndTime) || !spans[3].StartTime.Equal(spans[2].EndTime) {
		t.Error("the phases do not follow one another")
	}
	for n, header := range []http.Header{first, second} {
		s := spans[4+n]
		if parent := header.Get(ParentField); parent != fmt.Sprintf("00-%s-%s-%s", s.SpanContext.TraceID(), s.SpanContext.SpanID(), s.SpanContext.TraceFlags()) {
			t.Errorf("attempt %d names %s", n, parent)
		}
		if s.SpanKind != trace.SpanKindClient || s.Parent.SpanID() != whole.SpanContext.SpanID() || s.EndTime.After(whole.EndTime) {
			t.Errorf("attempt %d is %+v", n, s)
		}
	}
	if s := spans[4]; s.Status.Description != "no answer\uFFFD" || attributesOf(s)["error.type"] != "broken" || attributesOf(s)["http.request.resend_count"] != "" {
		t.Errorf("the attempt that failed is %+v", s)
	}
	if s := spans[5]; attributesOf(s)["http.response.status_code"] != "404" || attributesOf(s)["error.type"] != "404" || attributesOf(s)["http.request.resend_count"] != "1" {
		t.Errorf("the last attempt is %+v", s)
	}
}

// TestOutcomes: what a request's span says of its end.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method  string
		refused tenement.Code
		status  int
		span    string
		want    map[string]string // "": not there
	}{
		"the tenant failed": {"POST", "", 503, "POST", map[string]string{"http.response.status_code": "503", "error.type": "503"}},
		"we refused":        {"GET", tenement.CodeUnavailable, 503, "GET", map[string]string{"http.response.status_code": "503", "error.type": "unavailable"}},
		"the client left":   {"GET", "", 0, "GET", map[string]string{"http.response.status_code": "", "error.type": "canceled"}},
		"own method":        {"BREW", "", 418, "HTTP", map[string]string{"http.request.method": "_OTHER", "http.request.method_original": "BREW", "error.type": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := newRecorder(t, 1)
			q := rec.tracer.Begin(httptest.NewRequest(c.method, "http://a/", nil), false, time.Now())
			if c.refused != "" {
				q.Refused(c.refused)
			}
			q.End(tenement.InstanceID{}, c.status)
			s := rec.spans(t)[0]
			if s.Name != c.span {
				t.Errorf("the span is %s", s.Name)
			}
			got := attributesOf(s)
			for key, value := range c.want {
				if got[key] != value {
					t.Errorf("%s is %q, want %q", key, got[key], value)
				}
			}
		})
	}
}

// TestLongTexts: strangers choose paths.
func TestLongTexts(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, 1)
	r := httptest.NewRequest("GET", "http://a/", nil)
	r.RequestURI = "/" + strings.Repeat("x", 50_000)
	rec.tracer.Begin(r, false, time.Now()).End(alice, 200)
	if n := len(attributesOf(rec.spans(t)[0])["url.path"]); n != maxText {
		t.Errorf("%d bytes of a path are kept", n)
	}
}

// TestSample: of the traces that begin here, the part that was asked for is recorded; of
// others none that is not to be, and each that is.
func TestSample(t *testing.T) {
	t.Parallel()
	const (
		recorded = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		declined = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	)
	for name, c := range map[string]struct {
		sample      float64
		parent      string
		chosen      bool
		least, most int // of 1000
	}{
		"none":     {sample: 0, least: 0, most: 0},
		"all":      {sample: 1, least: 1000, most: 1000},
		"some":     {sample: 0.25, least: 150, most: 350},
		"chosen":   {sample: 0, chosen: true, least: 1000, most: 1000},
		"recorded": {sample: 0, parent: recorded, least: 1000, most: 1000},
		"declined": {sample: 1, parent: declined, chosen: true, least: 0, most: 0},
		"nonsense": {sample: 1, parent: "00-x", least: 1000, most: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := newRecorder(t, c.sample)
			for range 1000 {
				r := httptest.NewRequest("GET", "http://a/", nil)
				if c.parent != "" {
					r.Header.Set(ParentField, c.parent)
				}
				rec.tracer.Begin(r, c.chosen, time.Now()).End(alice, 200)
			}
			if n := len(rec.spans(t)); n < c.least || n > c.most {
				t.Errorf("%d of 1000 are recorded", n)
			}
		})
	}
}

// TestAppendUnrecorded: what begins is a trace, and another one each time.
func TestAppendUnrecorded(t *testing.T) {
	t.Parallel()
	a, b := string(AppendUnrecorded(nil)), string(AppendUnrecorded(nil))
	for _, parent := range []string{a, b} {
		if !Declined(t.Context(), parent) {
			t.Errorf("%s is none, or is recorded", parent)
		}
	}
	if a[:35] == b[:35] {
		t.Errorf("twice the trace %s", a)
	}
}

// stuck is a collector's side that fails, or waits.
type stuck struct {
	sdktrace.SpanExporter
	export func(context.Context) error
}

func (s stuck) ExportSpans(ctx context.Context, _ []sdktrace.ReadOnlySpan) error {
	return s.export(ctx)
}
func (s stuck) Shutdown(context.Context) error { return nil }

// lines counts lines of a log.
type lines struct {
	slog.Handler
	texts chan string
}

func (l lines) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "lost" {
			l.texts <- a.Value.String()
		}
		return true
	})
	return nil
}

func (lines) Enabled(context.Context, slog.Level) bool { return true }

// TestCollectorThatFails: what is lost is counted, and reported once a minute, until all was.
func TestCollectorThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := lines{texts: make(chan string, 100)}
		begun := time.Now()
		tracer := newTracer(t.Context(), stuck{export: func(context.Context) error {
			if time.Since(begun) < 150500*time.Millisecond {
				return errors.New("refused")
			}
			return nil
		}}, Config{Sample: 1, Log: slog.New(log)})
		time.Sleep(500 * time.Millisecond) // virtual; what is sent each second does not meet what ends then
		for range 400 {                    // seconds
			tracer.Begin(httptest.NewRequest("GET", "http://a/", nil), false, time.Now()).End(alice, 200)
			time.Sleep(time.Second) // virtual
		}
		tracer.Close(t.Context())
		if lost := tracer.Lost(); lost != 150 {
			t.Errorf("%d of 150 are lost", lost)
		}
		close(log.texts)
		var got []string
		for text := range log.texts {
			got = append(got, text)
		}
		if text := strings.Join(got, " "); text != "1 60 60 29" {
			t.Errorf("reported as lost %s", text)
		}
	})
}

// TestCollectorThatHangs: nobody waits for it, what does not fit is lost at once, and the
// end of the tracer waits three seconds.
func TestCollectorThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tracer := newTracer(t.Context(), stuck{export: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}, Config{Sample: 1, Log: slog.New(slog.DiscardHandler)})
		begun := time.Now()
		for range maxWaiting + 100 {
			tracer.Begin(httptest.NewRequest("GET", "http://a/", nil), false, time.Now()).End(alice, 200)
		}
		if took := time.Since(begun); took > 0 || tracer.Lost() != 100 {
			t.Errorf("after %s %d are lost", took, tracer.Lost())
		}
		tracer.Close(t.Context())
		if took := time.Since(begun); took != flushTime || tracer.Lost() != maxWaiting+100 {
			t.Errorf("after %s %d are lost", took, tracer.Lost())
		}
	})
}

// TestHeadersForTheCollector are the environment's; where it is, is not.
func TestHeadersForTheCollector(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20key")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	asked := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path + " " + r.Header.Get("Authorization")
	}))
	defer server.Close()
	tracer, err := New(t.Context(), Config{Endpoint: server.URL + "/base", Sample: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	tracer.Begin(httptest.NewRequest("GET", "http://a/", nil), false, time.Now()).End(alice, 200)
	tracer.Close(t.Context())
	if got := <-asked; got != "/base/v1/traces Bearer key" || tracer.Lost() != 0 {
		t.Errorf("asked for %s", got)
	}
}

// TestNil: without a tracer nothing happens, and nothing is allocated.
func TestNil(t *testing.T) { //nolint:paralleltest // AllocsPerRun
	var tracer *Tracer
	r := httptest.NewRequest("GET", "http://a/", nil)
	q := tracer.Begin(r, true, time.Now())
	header := http.Header{ParentField: {"nonsense"}, StateField: {"x"}}
	q.Waited(&tenement.WakeRecord{})
	q.Sends(header)
	q.Answered(200)
	q.Broke(errors.New("broken"))
	q.Refused(tenement.CodeBroken)
	q.End(alice, 200)
	tracer.Close(t.Context())
	if fmt.Sprint(header) != "map[Traceparent:[nonsense] Tracestate:[x]]" || tracer.Choose() || tracer.Lost() != 0 {
		t.Errorf("%v", header)
	}
	if n := testing.AllocsPerRun(100, func() { tracer.Begin(r, false, time.Time{}).Sends(header) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

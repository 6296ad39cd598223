package daemon_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"tenement/internal/runtime/runtimetest"
)

// traceCollector is one of OTLP over HTTP.
type traceCollector struct {
	t   *testing.T
	url string

	mu    sync.Mutex
	spans []span
}

// span is what a collector is told of one.
type span struct {
	*otlp.Span
	attributes map[string]string
	resource   map[string]string
}

func newTraceCollector(t *testing.T) *traceCollector {
	t.Helper()
	r := &traceCollector{t: t}
	server := httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *traceCollector) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var batch collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &batch)
	}
	if err != nil || req.Method != http.MethodPost || req.URL.Path != "/base/v1/traces" {
		r.t.Errorf("%s %s: %v", req.Method, req.URL.Path, err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range batch.ResourceSpans {
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				r.spans = append(r.spans, span{s, texts(s.Attributes), texts(of.Resource.Attributes)})
			}
		}
	}
}

func texts(list []*common.KeyValue) map[string]string {
	m := map[string]string{}
	for _, a := range list {
		switch v := a.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			m[a.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			m[a.Key] = fmt.Sprint(v.IntValue)
		default:
			m[a.Key] = a.Value.String()
		}
	}
	return m
}

// settings begins the configuration of a daemon that tells the collector.
func (r *traceCollector) settings(sample float64) string {
	return settings + fmt.Sprintf("tracing = { endpoint = '%s/base/', sample = %v }\n", r.url, sample)
}

// got is what was received so far.
func (r *traceCollector) got() []span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// await waits for n spans. Nobody flushes a daemon but its end, so they come within a second.
func (r *traceCollector) await(n int) []span {
	r.t.Helper()
	runtimetest.Eventually(r.t, fmt.Sprintf("%d spans are received", n), func() bool { return len(r.got()) >= n })
	return r.got()
}

// named are the spans of a name, that which began first before others.
func named(spans []span, name string) (list []span) {
	for _, s := range spans {
		if s.Name == name {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b span) int { return int(a.StartTimeUnixNano) - int(b.StartTimeUnixNano) })
	return list
}

// only is the one span of a name.
func only(t *testing.T, spans []span, name string) span {
	t.Helper()
	list := named(spans, name)
	if len(list) != 1 {
		t.Fatalf("%d spans are %s, of %d", len(list), name, len(spans))
	}
	return list[0]
}

func (s span) took() time.Duration { return time.Duration(s.EndTimeUnixNano - s.StartTimeUnixNano) }

func (s span) parent() string {
	return fmt.Sprintf("00-%s-%s-01", hex.EncodeToString(s.TraceId), hex.EncodeToString(s.SpanId))
}

// seenBy asks the tenant for the header of a request with the fields given, name after value.
func (s *site) seenBy(fields ...string) http.Header {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://alice.api.localhost/headers?secret=1", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for n := 0; n < len(fields); n += 2 {
		request.Header.Add(fields[n], fields[n+1])
	}
	answer, err := s.http.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var seen struct{ Header http.Header }
	if err := json.NewDecoder(answer.Body).Decode(&seen); err != nil {
		s.t.Fatal(err)
	}
	return seen.Header
}

// TestTraceOfAColdRequest has all its phases, in order, and the tenant is told of it.
func TestTraceOfAColdRequest(t *testing.T) {
	t.Parallel()
	r := newTraceCollector(t)
	s := build(t, r.settings(1)+service("api", "", "-boot=50ms"))
	s.spawn("api:alice")
	seen := s.seenBy("Other", "stays")
	wake := s.wakes(1)[0]
	s.stop() // which sends what there is
	spans := r.got()
	if len(spans) != 5 {
		t.Fatalf("%d spans: %+v", len(spans), spans)
	}
	whole, proxy := only(t, spans, "GET"), only(t, spans, "proxy")
	if whole.Kind != otlp.Span_SPAN_KIND_SERVER || len(whole.ParentSpanId) > 0 || proxy.Kind != otlp.Span_SPAN_KIND_CLIENT {
		t.Errorf("of kind %s with parent %x, and %s", whole.Kind, whole.ParentSpanId, proxy.Kind)
	}
	at := whole.StartTimeUnixNano
	for _, name := range []string{"queue", "spawn", "ready", "proxy"} {
		phase := only(t, spans, name)
		if string(phase.TraceId) != string(whole.TraceId) || string(phase.ParentSpanId) != string(whole.SpanId) {
			t.Errorf("%s is no part of the request", name)
		}
		if phase.StartTimeUnixNano < at || phase.EndTimeUnixNano < phase.StartTimeUnixNano || phase.EndTimeUnixNano > whole.EndTimeUnixNano {
			t.Errorf("%s begins %d ns after what is before it, takes %s and ends %d ns before the request", name,
				int64(phase.StartTimeUnixNano-at), phase.took(), int64(whole.EndTimeUnixNano-phase.EndTimeUnixNano))
		}
		if name == "spawn" || name == "ready" {
			if phase.StartTimeUnixNano != at {
				t.Errorf("%s does not follow at once", name)
			}
		}
		at = phase.EndTimeUnixNano
	}
	for name, ms := range map[string]float64{"queue": wake.QueueMS, "spawn": wake.SpawnMS, "ready": wake.ReadyMS} {
		if took := only(t, spans, name).took(); math.Abs(float64(took.Microseconds())-1000*ms) > 2 {
			t.Errorf("%s took %s, in the record of the wake %v ms", name, took, ms)
		}
	}
	if ready := only(t, spans, "ready"); ready.took() < 30*time.Millisecond || proxy.took() <= 0 {
		t.Errorf("it was ready after %s and answered after %s", ready.took(), proxy.took())
	}
	want := map[string]string{
		"http.request.method": "GET", "http.response.status_code": "200", "url.scheme": "http", "url.path": "/headers", "server.address": "alice.api.localhost",
		"tenement.service": "api", "tenement.instance": "alice",
	}
	if fmt.Sprint(whole.attributes) != fmt.Sprint(want) || whole.resource["service.name"] != "tenement" {
		t.Errorf("the attributes are %v, of %v", whole.attributes, whole.resource)
	}
	if parent := seen["Traceparent"]; len(parent) != 1 || parent[0] != proxy.parent() || seen.Get("Tracestate") != "" || seen.Get("Other") != "stays" {
		t.Errorf("the tenant sees %v, want %s", seen, proxy.parent())
	}
}

const (
	clientTrace = "0af7651916cd43dd8448eb211c80319c"
	clientSpan  = "b7ad6b7169203331"
)

// TestTraceThatIsContinued is the client's, which decides; of its own the daemon records none
// here. What is warm has no phases of a wake.
func TestTraceThatIsContinued(t *testing.T) {
	t.Parallel()
	r := newTraceCollector(t)
	s := build(t, r.settings(0)+service("api", ""))
	s.spawn("api:alice")
	for range 2 { // cold, and warm
		if parent := s.seenBy().Get("Traceparent"); !strings.HasSuffix(parent, "-00") || len(parent) != 55 {
			t.Errorf("a request that is not recorded has the parent %q", parent)
		}
		declined := "00-" + clientTrace + "-" + clientSpan + "-00"
		if seen := s.seenBy("Traceparent", declined, "Tracestate", "a=1"); seen.Get("Traceparent") != declined || seen.Get("Tracestate") != "a=1" {
			t.Errorf("%v", seen)
		}
	}
	seen := s.seenBy("Traceparent", "00-"+clientTrace+"-"+clientSpan+"-01", "Tracestate", "a=1", "Tracestate", "b=2")
	s.stop()
	spans := r.got()
	if len(spans) != 2 {
		t.Fatalf("%d spans: %+v", len(spans), spans)
	}
	whole, proxy := only(t, spans, "GET"), only(t, spans, "proxy")
	for _, s := range spans {
		if hex.EncodeToString(s.TraceId) != clientTrace || s.TraceState != "a=1,b=2" {
			t.Errorf("%s is part of %x with %s", s.Name, s.TraceId, s.TraceState)
		}
	}
	if hex.EncodeToString(whole.ParentSpanId) != clientSpan || string(proxy.ParentSpanId) != string(whole.SpanId) {
		t.Errorf("the parents are %x and %x", whole.ParentSpanId, proxy.ParentSpanId)
	}
	if seen.Get("Traceparent") != proxy.parent() || fmt.Sprint(seen["Tracestate"]) != "[a=1 b=2]" {
		t.Errorf("the tenant sees %v", seen)
	}
}

// TestTracesOfOneWake: each of those who have waited for it has its phases, at the same times.
func TestTracesOfOneWake(t *testing.T) {
	t.Parallel()
	r := newTraceCollector(t)
	s := build(t, r.settings(1)+service("api", "", "-boot=500ms"))
	s.spawn("api:alice")
	const requests = 3
	var group sync.WaitGroup
	for range requests {
		group.Go(func() { s.wants("http://alice.api.localhost/pid", http.StatusOK) })
	}
	group.Wait()
	shared := s.wakes(1)[0].Shared // all, unless one was very late
	s.stop()
	spans := r.got()
	if n := len(named(spans, "GET")); n != requests {
		t.Fatalf("%d requests", n)
	}
	for _, name := range []string{"queue", "spawn", "ready"} {
		list := named(spans, name)
		parents := map[string]bool{}
		for _, s := range list {
			parents[string(s.ParentSpanId)] = true
			if s.StartTimeUnixNano != list[0].StartTimeUnixNano || s.EndTimeUnixNano != list[0].EndTimeUnixNano {
				t.Errorf("%s is at different times", name)
			}
		}
		if len(parents) != shared || len(list) != shared {
			t.Errorf("%d requests have %d times a %s, and %d have waited", len(parents), len(list), name, shared)
		}
	}
}

// TestTraceOfRefusals and of what else has no usual end. No text of a stranger's spoils what
// is sent together with it.
func TestTraceOfRefusals(t *testing.T) {
	t.Parallel()
	r := newTraceCollector(t)
	s := build(t, r.settings(1)+service("api", "")+service("bad", "restart = 'never'", "-exit=1"))
	s.spawn("api:alice", "bad:alice")
	s.wants("http://alice.bad.localhost/", http.StatusServiceUnavailable)
	s.wants("http://alice.api.localhost/.env", http.StatusNotFound) // it sleeps on
	s.wants("http://bob.api.localhost/", http.StatusNotFound)
	s.wants("http://alice.none.localhost/", http.StatusNotFound) // nobody's: it has no trace
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "GET /\xff\xfe HTTP/1.1\r\nHost: alice.api.localhost\r\nConnection: close\r\n\r\n")
	if _, e := io.Copy(io.Discard, conn); err != nil || e != nil {
		t.Fatal(err, e)
	}
	s.stop()
	requests := named(r.got(), "GET")
	if len(requests) != 4 {
		t.Fatalf("%d requests", len(requests))
	}
	for n, want := range []string{
		"503 unavailable bad alice", "404  api alice", "404 not_found api bob", "200  api alice",
	} {
		a := requests[n].attributes
		if got := a["http.response.status_code"] + " " + a["error.type"] + " " + a["tenement.service"] + " " + a["tenement.instance"]; got != want {
			t.Errorf("request %d: %s, want %s", n, got, want)
		}
	}
	if path := requests[3].attributes["url.path"]; path != "/\uFFFD" {
		t.Errorf("the path is %q", path)
	}
}

// TestTraceOfStreams ends when they do.
func TestTraceOfStreams(t *testing.T) {
	t.Parallel()
	r := newTraceCollector(t)
	s := build(t, r.settings(1)+service("api", ""))
	s.spawn("api:alice")
	s.pid("alice.api.localhost")
	r.await(5)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://alice.api.localhost/sse?every=10ms", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := s.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if line, err := bufio.NewReader(answer.Body).ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	socket, _, err := websocket.Dial(timeout(t, 20*time.Second), "ws://alice.api.localhost/ws", &websocket.DialOptions{HTTPClient: s.http})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.CloseNow() }()
	if err := socket.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, echo, err := socket.Read(t.Context()); err != nil || string(echo) != "hello" {
		t.Fatal(string(echo), err)
	}
	for n, stream := range []struct {
		status string
		end    func() error
	}{
		{"101", func() error { return socket.Close(websocket.StatusNormalClosure, "") }},
		{"200", func() error { cancel(); return nil }},
	} {
		ends := uint64(time.Now().UnixNano()) //nolint:gosec // after 1970
		if err := stream.end(); err != nil {
			t.Error(err)
		}
		for _, s := range r.await(7 + 2*n)[5+2*n:] {
			if status := s.attributes["http.response.status_code"]; status != stream.status || s.EndTimeUnixNano < ends {
				t.Errorf("%s with status %s, want %s, has ended %d ns after the stream", s.Name, status, stream.status, int64(s.EndTimeUnixNano-ends))
			}
		}
	}
}

// TestCollectorThatIsDown harms no request, and is told of in the metrics.
func TestCollectorThatIsDown(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	s := build(t, settings+"tracing = { endpoint = 'http://"+l.Addr().String()+"' }\n"+service("api", ""))
	s.spawn("api:alice")
	for range 20 {
		s.get("http://alice.api.localhost/health")
	}
	s.measures("tenement_trace_spans_lost_total 43")
}

// TestCollectorThatHangs harms neither requests nor the end of the daemon.
func TestCollectorThatHangs(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else nobody would notice that the daemon leaves
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	s := build(t, settings+"tracing = { endpoint = '"+server.URL+"' }\n"+service("api", ""))
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/health")
	<-asked
	for range 20 {
		s.get("http://alice.api.localhost/health")
	}
	s.stop()
}

package proxy

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tenement/internal/tracing"
)

// newTracer has a collector that is not there.
func newTracer(t *testing.T, sample float64) *tracing.Tracer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	tracer, err := tracing.New(t.Context(), tracing.Config{Endpoint: "http://" + l.Addr().String(), Sample: sample, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tracer.Close(t.Context()) })
	return tracer
}

const (
	clientTrace    = "00-0af7651916cd43dd8448eb211c80319c-"
	clientSpan     = "b7ad6b7169203331"
	clientRecorded = clientTrace + clientSpan + "-01"
	clientDeclined = clientTrace + clientSpan + "-00"
)

// TestTraceContext: what a tenant is told of the trace that its request is part of, on both
// ways through the proxy (W3C Trace Context §3).
func TestTraceContext(t *testing.T) {
	t.Parallel()
	const (
		begunRecorded = "^00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]$"
		begunDeclined = "^00-[0-9a-f]{32}-[0-9a-f]{16}-00$"
		continued     = "^" + clientTrace + "[0-9a-f]{16}-01$"
		declined      = "^" + clientDeclined + "$"
		none          = "^$"
	)
	state := []string{"Tracestate: a=1", "tracestate: b@c=2,d=3"}
	kept := "a=1|b@c=2,d=3"
	for name, c := range map[string]struct {
		sample float64 // -1: there is no tracer
		header []string
		parent string // as the tenant is to see it
		state  string
		direct bool // a GET is answered directly
	}{
		"off":                        {-1, nil, none, "", true},
		"off, recorded":              {-1, append(state, "Traceparent: "+clientRecorded), "^" + clientRecorded + "$", kept, true},
		"off, nonsense":              {-1, append(state, "traceParent: x"), "^x$", kept, true},
		"begins":                     {1, nil, begunRecorded, "", false},
		"begins, none":               {0, nil, begunDeclined, "", true},
		"recorded":                   {0, append(state, "TRACEPARENT: "+clientRecorded), continued, kept, false},
		"recorded, no state":         {0, []string{"traceparent: " + clientRecorded}, continued, "", false},
		"declined":                   {1, append(state, "Traceparent: "+clientDeclined), declined, kept, true},
		"nonsense":                   {0, append(state, "Traceparent: 00-x-y-01"), begunDeclined, "", false},
		"nonsense, recorded":         {1, append(state, "Traceparent: 00-x-y-00"), begunRecorded, "", false},
		"two":                        {0, append(state, "Traceparent: "+clientRecorded, "Traceparent: "+clientRecorded), begunDeclined, "", false},
		"state alone":                {0, state, begunDeclined, "", false},
		"state alone, recorded":      {1, state, begunRecorded, "", false},
		"version 255":                {1, []string{"Traceparent: ff" + clientRecorded[2:]}, begunRecorded, "", false},
		"later version":              {0, []string{"Traceparent: cc" + clientRecorded[2:] + "-more"}, continued, "", false},
		"later version, declined":    {1, []string{"Traceparent: cc" + clientDeclined[2:] + "-more"}, "^cc" + clientDeclined[2:] + "-more$", "", true},
		"zero trace":                 {0, []string{"Traceparent: 00-" + strings.Repeat("0", 32) + "-" + clientSpan + "-01"}, begunDeclined, "", false},
		"capital letters":            {0, []string{"Traceparent: " + strings.ToUpper(clientRecorded)}, begunDeclined, "", false},
		"named in Connection":        {0, []string{"Traceparent: " + clientRecorded, "Connection: traceparent"}, continued, "", false},
		"nonsense in the state":      {0, []string{"Traceparent: " + clientRecorded, "Tracestate: ???"}, continued, "???", false},
		"recorded and random":        {0, []string{"Traceparent: " + clientTrace + clientSpan + "-03"}, "^" + clientTrace + "[0-9a-f]{16}-0[13]$", "", false},
		"declined, through net/http": {1, []string{"Traceparent: " + clientDeclined, "Te: trailers"}, declined, "", false},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} { // the latter never directly
			t.Run(name+"/"+method, func(t *testing.T) {
				t.Parallel()
				tenant := newTenant(t, func(w http.ResponseWriter, r *http.Request) {
					_, _ = fmt.Fprint(w, strings.Join(r.Header["Traceparent"], "|"), "\n", strings.Join(r.Header["Tracestate"], "|"), "\n", r.Header.Get("Other"))
				})
				direct := make(chan bool, 1)
				f := newFront(t, []*life{tenant}, func(_ *world, config *Config) {
					config.Served = func(s Served) { direct <- s.conn != nil }
					if c.sample >= 0 {
						config.Tracer = newTracer(t, c.sample)
					}
				})
				client := f.raw(t)
				lines := slices.Concat([]string{method + " / HTTP/1.1", "Host: " + aliceHost, "Other: stays", "Content-Length: 0"}, c.header, []string{"", ""})
				if method == http.MethodGet {
					lines = slices.DeleteFunc(lines, func(l string) bool { return l == "Content-Length: 0" })
				}
				client.send(lines...)
				body, err := io.ReadAll(client.response(method).Body)
				if err != nil {
					t.Fatal(err)
				}
				seen := strings.Split(string(body), "\n")
				if !regexp.MustCompile(c.parent).MatchString(seen[0]) || seen[0] == clientRecorded && c.sample >= 0 {
					t.Errorf("the tenant sees the parent %q, want %s", seen[0], c.parent)
				}
				if seen[1] != c.state || seen[2] != "stays" {
					t.Errorf("and the state %q, want %q; and %q", seen[1], c.state, seen[2])
				}
				if got := wait(t, "the request is told of", direct); got != (c.direct && method == http.MethodGet) {
					t.Errorf("answered directly: %v", got)
				}
			})
		}
	}
}

// TestTracesOnOneConnection: what is decided for one request is not for the next.
func TestTracesOnOneConnection(t *testing.T) {
	t.Parallel()
	tenant := newTenant(t, func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.Header["Traceparent"]) })
	f := newFront(t, []*life{tenant}, func(_ *world, c *Config) { c.Tracer = newTracer(t, 0.5) })
	recorded := map[string]int{}
	seen := map[string]bool{}
	client := f.raw(t)
	for range 200 {
		client.SetDeadline(time.Now().Add(patience))
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			lines := []string{method + " / HTTP/1.1", "Host: " + aliceHost, "", ""}
			if method == http.MethodPost {
				lines = slices.Insert(lines, 2, "Content-Length: 0")
			}
			client.send(lines...)
			body := readAll(t, client.response(method))
			if seen[body] {
				t.Fatalf("twice %s", body)
			}
			seen[body] = true
			if !strings.HasSuffix(body, "-00]") {
				recorded[method]++
			}
		}
	}
	for method, n := range recorded {
		if n < 60 || n > 140 {
			t.Errorf("%d of 200 %s are recorded, want half", n, method)
		}
	}
}

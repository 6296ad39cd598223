package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
	"tenement/internal/route"
)

// indirect has net/http serve everything.
func indirect(_ *world, c *Config) { c.Ready = nil }

// TestPlainRequestsAreAnsweredDirectly: and only those, whatever came before on the
// connection.
func TestPlainRequestsAreAnsweredDirectly(t *testing.T) {
	t.Parallel()
	var passed atomic.Int64
	tenant := newTenant(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	w := &world{t: t, lives: []*life{tenant}}
	h := New(Config{
		Lookup:  func(string, string) route.Target { return route.Target{Kind: route.Instance, ID: alice} },
		Acquire: w.acquire,
		Ready: func(ctx context.Context, id tenement.InstanceID) (tenement.Lease, bool) {
			lease, err := w.acquire(ctx, id)
			return lease, err == nil
		},
	})
	addr := serve(t, h, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		passed.Add(1)
		h.ServeHTTP(w, r)
	}))
	defer tenant.tr.CloseIdleConnections()
	f := &front{world: w, addr: addr}
	c := f.raw(t)
	steps := []struct {
		request string
		direct  bool
	}{
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", false},
		{"GET /a%20b?c HTTP/1.1\r\nhost: a:80\r\nConnection: keep-alive\r\nX: y\r\n\r\n", true},
		{"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", true},
		{"DELETE / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n", true},
		{"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n", false},
		{"GET //a HTTP/1.1\r\nHost: a\r\n\r\n", false},
		{"GET / HTTP/1.1\r\nHost: a\r\nTe: trailers\r\n\r\n", false},
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", false},
		{"POST / HTTP/1.1\r\nHost: a\r\n\r\n", false},
		{"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + strings.Repeat("x", 6000) + "\r\n\r\n", true},
		{"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", false}, // and from here on no one is
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", false},
	}
	for i, step := range steps {
		before := passed.Load()
		c.send(step.request)
		method, _, _ := strings.Cut(step.request, " ")
		res := c.response(method)
		if res.StatusCode == http.StatusContinue {
			res = c.response(method)
		}
		body := readAll(t, res)
		_, want, _ := strings.Cut(step.request, "\r\n\r\n")
		if res.StatusCode != http.StatusOK || body != want {
			t.Errorf("%d: %s %q, want %q", i, res.Status, body, want)
		}
		if direct := passed.Load() == before; direct != step.direct {
			t.Errorf("%d: answered directly: %v", i, direct)
		}
	}
}

// TestPipelinedRequests come at once, of both kinds, and are answered in order.
func TestPipelinedRequests(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Path)
		_, _ = io.Copy(w, r.Body)
	})}, nil)
	c := f.raw(t)
	var all, want []string
	for i := range 40 {
		path := fmt.Sprintf("/%d", i)
		request := "GET " + path + " HTTP/1.1\r\nHost: " + aliceHost + "\r\n\r\n"
		if i%3 == 1 {
			request = "POST " + path + " HTTP/1.1\r\nHost: " + aliceHost + "\r\nContent-Length: 5\r\n\r\nGET /"
			path += "GET /"
		}
		all, want = append(all, request), append(want, path)
	}
	c.send(strings.Join(all, ""))
	for i, want := range want {
		if got := readAll(t, c.response(http.MethodGet)); got != want {
			t.Fatalf("answer %d is %q, want %q", i, got, want)
		}
	}
}

// TestPipelinedBehindASlowAnswer: what comes while a process is silent is not lost, nor
// taken for a client that leaves.
func TestPipelinedBehindASlowAnswer(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan string, 2), make(chan struct{})
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		<-answer
		_, _ = io.WriteString(w, r.URL.Path)
	})}, nil)
	c := f.raw(t)
	c.send("GET /1 HTTP/1.1", "Host: "+aliceHost, "", "")
	wait(t, "the first is asked", asked)
	time.AfterFunc(3*quickPatience, func() { // it is being watched by then, or not: both are right
		c.send("GET /2 HTTP/1.1", "Host: "+aliceHost, "", "")
		time.AfterFunc(quickPatience, func() { close(answer) })
	})
	for _, want := range []string{"/1", "/2"} {
		if got := readAll(t, c.response(http.MethodGet)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestLeavingClosesConnections behind the next response, of either kind.
func TestLeavingClosesConnections(t *testing.T) {
	t.Parallel()
	var leaving atomic.Bool
	f := newFront(t, []*life{newTenant(t, hello)}, func(_ *world, c *Config) { c.Leaving = leaving.Load })
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		leaving.Store(false)
		c := f.raw(t)
		for _, want := range []bool{false, true} {
			leaving.Store(want)
			c.send(method+" / HTTP/1.1", "Host: "+aliceHost, "", "")
			res := c.response(method)
			if readAll(t, res); res.Close != want {
				t.Errorf("%s: the connection is closed: %v, want %v", method, res.Close, want)
			}
		}
		if _, err := c.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: then %v", method, err)
		}
	}
}

// TestShutdown waits for a direct answer, closes what is unused, and leaves nothing.
func TestShutdown(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}), make(chan struct{})
	tenant := newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(asked)
			<-answer
		}
		hello(w, r)
	})
	defer tenant.tr.CloseIdleConnections()
	w := &world{t: t, lives: []*life{tenant}}
	h := New(Config{
		Lookup: func(string, string) route.Target { return route.Target{Kind: route.Instance, ID: alice} },
		Ready: func(ctx context.Context, id tenement.InstanceID) (tenement.Lease, bool) {
			lease, err := w.acquire(ctx, id)
			return lease, err == nil
		},
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(h)
	var done sync.WaitGroup
	done.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	f := &front{world: w, addr: listener.Addr().String()}
	idle, busy := f.raw(t), f.raw(t)
	idle.send("GET / HTTP/1.1", "Host: a", "", "")
	readAll(t, idle.response(http.MethodGet))
	busy.send("GET /slow HTTP/1.1", "Host: a", "", "")
	wait(t, "the slow one is asked", asked)
	ended := make(chan error, 1)
	done.Go(func() { ended <- server.Shutdown(t.Context()) })
	if _, err := idle.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection: %v", err)
	}
	select {
	case err := <-ended:
		t.Errorf("Shutdown did not wait: %v", err)
	default:
	}
	close(answer)
	res := busy.response(http.MethodGet)
	if body := readAll(t, res); body != "hello" || !res.Close {
		t.Errorf("%q, and the connection is closed: %v", body, res.Close)
	}
	if err := wait(t, "Shutdown returns", ended); err != nil {
		t.Error(err)
	}
	done.Wait()
	if len(server.conns) > 0 {
		t.Errorf("%d connections are left", len(server.conns))
	}
}

// TestCloseBreaksOff whatever is under way.
func TestCloseBreaksOff(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	tenant := newTenant(t, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	w := &world{t: t, lives: []*life{tenant}}
	h := New(Config{
		Lookup: func(string, string) route.Target { return route.Target{Kind: route.Instance, ID: alice} },
		Ready: func(ctx context.Context, id tenement.InstanceID) (tenement.Lease, bool) {
			lease, err := w.acquire(ctx, id)
			return lease, err == nil
		},
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(h)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	c := (&front{world: w, addr: listener.Addr().String()}).raw(t)
	c.send("GET / HTTP/1.1", "Host: a", "", "")
	wait(t, "the tenant is asked", asked)
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.ReadByte(); err == nil {
		t.Error("an answer")
	}
	<-served
	eventually(t, "the lease is released", func() bool { return !w.inUse() })
}

// TestTrailersAreBounded: they are kept until the last has come.
func TestTrailersAreBounded(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, err := readHead(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
		line := "X-T: " + strings.Repeat("x", 1000) + "\r\n"
		for range 2 * maxResponseHeader / len(line) {
			if _, err := io.WriteString(c, line); err != nil {
				return
			}
		}
		_, _ = io.WriteString(c, "\r\n")
	})}, nil)
	c := f.raw(t)
	c.send("GET / HTTP/1.1", "Host: "+aliceHost, "Connection: close", "", "")
	if all, err := io.ReadAll(c.Reader); err != nil || len(all) > maxResponseHeader {
		t.Errorf("%d bytes, %v", len(all), err)
	}
}

// FuzzDirectRequest compares what a tenant gets of a request, and its client of the answer,
// with what net/http makes of it.
func FuzzDirectRequest(f *testing.F) {
	for _, seed := range []struct{ line, fields string }{
		{"GET / HTTP/1.1", ""},
		{"HEAD /a%2fb?c=%zz HTTP/1.1", "Accept: a\r\nAccept: b"},
		{"GET /%zz HTTP/1.1", ""},
		{"DELETE /{} HTTP/1.1", "X-Forwarded-For: 1.1.1.1\r\nFORWARDED: for=x\r\nx_forwarded_proto: https"},
		{"OPTIONS * HTTP/1.1", "Connection: keep-alive"},
		{"GET http://alice.api.localhost/x HTTP/1.1", ""},
		{"GET //x HTTP/1.1", "Host: b"},
		{"GET / HTTP/1.0", "Connection: X-A\r\nX-A: 1"},
		{"POST / HTTP/1.1", "Content-Length: 0"},
		{"GET / HTTP/1.1", "Content-Length: 0\r\nTe: trailers\r\nKeep-Alive: 5\r\nProxy-Connection: close"},
		{"GET / HTTP/1.1", "X-A: 1\r\n folded\r\nX-B : 2"},
		{"GET / HTTP/1.1", "X-A: \x01\r\nX-\xff: 1\r\nX-C: \xff\t"},
		{"GET /#a HTTP/1.1", "X-A: 1\nX-B: 2"},
		{"BREW / HTTP/1.1", "Expect: 100-continue\r\nTransfer-Encoding: identity"},
	} {
		f.Add(seed.line, seed.fields)
	}
	direct, other := newFront(f, []*life{newEcho(f)}, nil), newFront(f, []*life{newEcho(f)}, indirect)
	f.Fuzz(func(t *testing.T, line, fields string) {
		request := line + "\r\nHost: " + aliceHost + "\r\nConnection: close\r\n"
		if fields != "" {
			request += fields + "\r\n"
		}
		got, want := direct.say(t, request+"\r\n"), other.say(t, request+"\r\n")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: (-net/http +direct)\n%s", request, diff)
		}
	})
}

// heard is what a client gets in answer to raw bytes.
type heard struct {
	Status  int
	Header  http.Header
	Body    string
	Close   bool
	Trailer http.Header
}

// say sends a whole request on a connection of its own and reads to the end.
func (f *front) say(t testing.TB, request string) heard {
	t.Helper()
	nc, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Second))
	_, _ = io.WriteString(nc, request)
	r := bufio.NewReader(nc)
	method, _, _ := strings.Cut(request, " ")
	for {
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err, ok := errors.AsType[net.Error](err); ok && err.Timeout() {
			t.Skip("more is waited for")
		}
		if err != nil {
			return heard{}
		}
		if res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			return heard{} // how much of it came is a matter of luck
		}
		h := heard{res.StatusCode, http.Header{}, canonical(string(body)), res.Close, res.Trailer}
		for name, values := range res.Header {
			framing := name == "Content-Length" && method != http.MethodHead // the body was compared
			if name != "Date" && !framing {
				h.Header[http.CanonicalHeaderKey(name)] = values
			}
		}
		return h
	}
}

// canonical makes the names in what newEcho says of one case, which is not ours to keep.
func canonical(body string) string {
	var s seen
	if json.Unmarshal([]byte(body), &s) != nil {
		return body
	}
	head := http.Header{}
	for _, name := range slices.Sorted(maps.Keys(s.Head)) {
		key := http.CanonicalHeaderKey(name)
		head[key] = append(head[key], s.Head[name]...)
	}
	return fmt.Sprint(s.Line, head)
}

// FuzzDirectResponse compares what a client gets of a tenant's answer with what net/http
// makes of it.
func FuzzDirectResponse(f *testing.F) {
	for _, answer := range rawAnswers {
		f.Add(answer, false)
		f.Add(answer, true)
	}
	var answer atomic.Pointer[string]
	tenant := func() []*life {
		return []*life{newRawTenant(f, func(_ int, c net.Conn, r *bufio.Reader) {
			if _, err := readHead(r); err == nil {
				_, _ = io.WriteString(c, *answer.Load())
			}
		})}
	}
	direct, other := newFront(f, tenant(), nil), newFront(f, tenant(), indirect)
	f.Fuzz(func(t *testing.T, text string, head bool) {
		if strings.Contains(text, " 101") {
			t.Skip("a switch of protocols that nobody asked for is refused with other words")
		}
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		answer.Store(&text)
		request := method + " / HTTP/1.1\r\nHost: " + aliceHost + "\r\nConnection: close\r\n\r\n"
		got, want := direct.say(t, request), other.say(t, request)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: (-net/http +direct)\n%s", text, diff)
		}
	})
}

package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// newDying is a process that takes one request's header, maybe answers some
// bytes, and dies.
func newDying(t testing.TB, answer string) (l *life, requests *atomic.Int32) {
	requests = new(atomic.Int32)
	l = newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, err := readHead(r); err == nil {
			requests.Add(1)
			_, _ = io.WriteString(c, answer)
		}
		l.die()
	})
	return l, requests
}

// newRefusing is a process that turns out dead when it is dialed.
func newRefusing() *life {
	l := newDeadLife()
	l.dial = func(context.Context) (net.Conn, error) {
		l.die()
		return nil, errors.New("connection refused")
	}
	return l
}

func TestRetry(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		method, body string
		first        func(t *testing.T) *life
		status       int
		leases       int
	}{
		"GET, process died":                 {"GET", "", dying(""), 200, 2},
		"DELETE, process died":              {"DELETE", "", dying(""), 200, 2},
		"PUT without a body":                {"PUT", "", dying(""), 200, 2},
		"POST, process died":                {"POST", "", dying(""), 502, 1},
		"PATCH, process died":               {"PATCH", "", dying(""), 502, 1},
		"unknown method, process died":      {"QUERY", "", dying(""), 502, 1},
		"PUT with its body on the way":      {"PUT", "hello", dying(""), 502, 1},
		"GET, some of an answer":            {"GET", "", dying("HTTP/1.1 20"), 502, 1},
		"GET, garbage":                      {"GET", "", dying("hello, who is there\r\n\r\n"), 502, 1},
		"POST, never connected":             {"POST", "", refusing, 200, 2},
		"POST with a body, never connected": {"POST", "hello", refusing, 200, 2},
		"PUT with a body, never connected":  {"PUT", "hello", refusing, 200, 2},
		"GET, alive but refuses":            {"GET", "", func(*testing.T) *life { return newDeadLife() }, 502, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := tt.first(t)
			f := newFront(t, []*life{first, newTenant(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(w, r.Body)
			})}, nil)
			var body io.Reader
			if tt.body != "" {
				body = strings.NewReader(tt.body)
			}
			r := f.request(t, tt.method, "/", body)
			res, got := f.do(t, r)
			acquired, _ := f.counts()
			if res.StatusCode != tt.status || acquired != tt.leases {
				t.Errorf("%s after %d leases, want %d after %d", res.Status, acquired, tt.status, tt.leases)
			}
			if tt.status == 200 && got != tt.body {
				t.Errorf("the second process got %q", got)
			}
			if tt.status == 502 && res.Header.Get(codeHeader) != "broken" {
				t.Errorf("%s: %q", codeHeader, res.Header.Get(codeHeader))
			}
		})
	}
}

func dying(answer string) func(t *testing.T) *life {
	return func(t *testing.T) *life { l, _ := newDying(t, answer); return l }
}

func refusing(*testing.T) *life { return newRefusing() }

// TestRequestThatKills: a request that a process died of twice is not tried on a third.
func TestRequestThatKills(t *testing.T) {
	t.Parallel()
	first, firstRequests := newDying(t, "")
	second, secondRequests := newDying(t, "")
	third, thirdRequests := newDying(t, "")
	f := newFront(t, []*life{first, second, third}, nil)
	res, _ := f.do(t, f.request(t, http.MethodGet, "/", nil))
	if res.StatusCode != http.StatusBadGateway {
		t.Errorf("answered %s", res.Status)
	}
	if a, b, c := firstRequests.Load(), secondRequests.Load(), thirdRequests.Load(); a != 1 || b != 1 || c != 0 {
		t.Errorf("the processes were asked %d, %d and %d times", a, b, c)
	}
}

func TestRetriesAreBounded(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newRefusing(), newRefusing(), newRefusing(), newTenant(t, hello)}, nil)
	res, _ := f.get(t, "/")
	if acquired, _ := f.counts(); res.StatusCode != http.StatusBadGateway || acquired != 1+maxRetries {
		t.Errorf("%s after %d leases", res.Status, acquired)
	}
}

// What the second Acquire says is the answer.
func TestRetryFindsNoProcess(t *testing.T) {
	t.Parallel()
	dead := newDeadLife()
	f := newFront(t, []*life{dead}, func(w *world, _ *Config) {
		dead.dial = func(context.Context) (net.Conn, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.err = errors.New("no")
			dead.die()
			return nil, errors.New("refused")
		}
	})
	if res, _ := f.get(t, "/"); res.StatusCode != http.StatusInternalServerError {
		t.Error(res.Status)
	}
}

// A connection that the process closed while nobody used it costs no request.
func TestStaleConnection(t *testing.T) {
	t.Parallel()
	tenant := newRawTenant(t, func(n int, c net.Conn, r *bufio.Reader) {
		for i := 0; n > 0 || i < 1; i++ {
			if _, err := readHead(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
		_, _ = readHead(r) // takes a second request and closes without an answer
	})
	f := newFront(t, []*life{tenant}, nil)
	for range 2 {
		if res, _ := f.get(t, "/"); res.StatusCode != http.StatusOK {
			t.Error(res.Status)
		}
	}
	if acquired, _ := f.counts(); acquired != 2 {
		t.Errorf("%d leases for two requests", acquired)
	}
}

// A client that goes away while its request waits to be sent again ends it.
func TestClientLeavesDuringRetry(t *testing.T) {
	t.Parallel()
	tried := make(chan struct{}, 1)
	dead := newDeadLife()
	dead.dial = func(context.Context) (net.Conn, error) {
		tried <- struct{}{}
		return nil, errors.New("refused")
	}
	f := newFront(t, []*life{dead}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-tried; cancel() }()
	_, err := f.client.Do(f.request(t, http.MethodGet, "/", nil).WithContext(ctx))
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	eventually(t, "lease released", func() bool { _, held := f.counts(); return held == 0 })
}

func TestRequestTimeout(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/stream" {
			w.(http.Flusher).Flush()
		}
		<-release
		hello(w, r)
	})}, func(w *world, _ *Config) { w.service.Timeouts.Request = time.Second })

	stream, err := f.client.Do(f.request(t, http.MethodGet, "/stream", nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []io.Reader{nil, strings.NewReader("hello")} {
		res, _ := f.do(t, f.request(t, http.MethodPost, "/slow", body))
		if res.StatusCode != http.StatusGatewayTimeout || res.Header.Get(codeHeader) != "timeout" {
			t.Error(res.Status, res.Header)
		}
	}
	// By now the stream is older than the timeout.
	close(release)
	if got := readAll(t, stream); got != "hello" {
		t.Errorf("a stream was cut: %q", got)
	}
}

// The clock is the tenant's: it does not run while the client is slow.
func TestRequestTimeoutIgnoresSlowUploads(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	})}, func(w *world, _ *Config) { w.service.Timeouts.Request = time.Second })
	body, up := io.Pipe()
	go func() {
		defer up.Close()
		_, _ = io.WriteString(up, "x")
		<-time.After(1500 * time.Millisecond)
		_, _ = io.WriteString(up, "y")
	}()
	if res, got := f.do(t, f.request(t, http.MethodPost, "/", body)); res.StatusCode != http.StatusOK || got != "xy" {
		t.Errorf("%s %q", res.Status, got)
	}
}

// A tenant that never takes the body in is too slow, however much the client offers.
func TestRequestTimeoutCountsUnreadBodies(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newRawTenant(t, func(_ int, c net.Conn, _ *bufio.Reader) {
		_ = c.(*net.TCPConn).SetReadBuffer(4096)
		<-t.Context().Done()
	})}, func(w *world, _ *Config) { w.service.Timeouts.Request = 200 * time.Millisecond })
	c := f.raw(t)
	go func() {
		_, _ = io.WriteString(c.Conn, "POST / HTTP/1.1\r\nHost: "+aliceHost+"\r\nContent-Length: 100000000\r\n\r\n"+strings.Repeat("x", 20<<20))
	}()
	if res := c.response(http.MethodPost); res.StatusCode != http.StatusGatewayTimeout {
		t.Error(res.Status)
	}
}

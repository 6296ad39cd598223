package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tenement"
)

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

func TestForward(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newTenant(t, hello)}, nil)
	for _, host := range []string{aliceHost, "api.localhost"} {
		r := f.request(t, http.MethodGet, "/", nil)
		r.Host = host
		res, body := f.do(t, r)
		if res.StatusCode != http.StatusOK || body != "hello" {
			t.Errorf("%s: %s %q", host, res.Status, body)
		}
		if code := res.Header.Get(codeHeader); code != "" {
			t.Errorf("%s: a tenant's answer carries %s %q", host, codeHeader, code)
		}
	}
}

func TestUnknownHostTouchesNothing(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newDeadLife()}, nil)
	r := f.request(t, http.MethodGet, "/", nil)
	r.Host = "nobody.api.localhost"
	res, _ := f.do(t, r)
	if acquired, _ := f.counts(); res.StatusCode != http.StatusNotFound || acquired != 0 {
		t.Errorf("%s, %d leases", res.Status, acquired)
	}
	if code := res.Header.Get(codeHeader); code != "not_found" {
		t.Errorf("%s is %q", codeHeader, code)
	}
}

// An answer to a body that nobody reads must not wait for it.
func TestRefusalDoesNotWaitForBody(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newDeadLife()}, nil)
	c := f.raw(t)
	c.send("POST / HTTP/1.1", "Host: nobody.localhost", "Content-Length: 10", "", "abc")
	res := c.response(http.MethodPost)
	if res.StatusCode != http.StatusNotFound || !res.Close {
		t.Errorf("%s, close %v", res.Status, res.Close)
	}
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil, func(_ *world, c *Config) {
		c.Admin = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/panic":
				panic("oops")
			case "/late":
				_, _ = io.WriteString(w, "some")
				panic("oops")
			}
			_, flusher := w.(http.Flusher)
			if err := http.NewResponseController(w).Flush(); err != nil || !flusher {
				t.Errorf("flush: %v, flusher %v", err, flusher)
			}
			hello(w, r)
		})
	})
	get := func(path string) (*http.Response, error) {
		r := f.request(t, http.MethodGet, path, nil)
		r.Host = "localhost"
		return f.client.Do(r)
	}
	res, err := get("/")
	if err != nil || readAll(t, res) != "hello" {
		t.Errorf("admin: %v", err)
	}
	res, err = get("/panic")
	if err != nil || res.StatusCode != http.StatusInternalServerError || strings.Contains(readAll(t, res), "oops") {
		t.Errorf("panic: %v %v", res, err)
	}
	if res, err = get("/late"); err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("a panic in the middle of an answer looks like its end")
	}
}

func TestNoAdminIsNotFound(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil, nil)
	r := f.request(t, http.MethodGet, "/", nil)
	r.Host = "localhost"
	if res, _ := f.do(t, r); res.StatusCode != http.StatusNotFound {
		t.Error(res.Status)
	}
}

func TestPanicReleasesLease(t *testing.T) {
	t.Parallel()
	tenant := newTenant(t, hello)
	tenant.tr = panicking{tenant.tr}
	f := newFront(t, []*life{tenant}, nil)
	res, _ := f.get(t, "/")
	if acquired, held := f.counts(); res.StatusCode != http.StatusInternalServerError || acquired != 1 || held != 0 {
		t.Errorf("%s, %d leases, %d held", res.Status, acquired, held)
	}
}

type panicking struct{ tenement.Transport }

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic("transport") }

// What Acquire says decides the answer.
func TestAcquireErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		err        error
		status     int
		code       string
		retryAfter string
	}{
		{&tenement.Error{Code: tenement.CodeNotFound, Op: "acquire"}, 404, "not_found", ""},
		{&tenement.Error{Code: tenement.CodeSuspended, Op: "acquire"}, 503, "suspended", "1"},
		{&tenement.Error{Code: tenement.CodeUnavailable, Op: "acquire", RetryAfter: 2100 * time.Millisecond}, 503, "unavailable", "3"},
		{&tenement.Error{Code: tenement.CodeUnavailable, Op: "a", Err: &tenement.Error{Code: tenement.CodeFull, RetryAfter: time.Minute}}, 503, "unavailable", "60"},
		{&tenement.Error{Code: tenement.CodeFull, Op: "acquire", RetryAfter: time.Millisecond}, 503, "full", "1"},
		{&tenement.Error{Code: tenement.CodeTimeout, Op: "acquire"}, 504, "timeout", ""},
		{&tenement.Error{Code: tenement.CodeCanceled, Op: "acquire"}, 503, "unavailable", "1"},
		{errors.New("secret /var/lib"), 500, "internal", ""},
	}
	for _, tt := range tests {
		f := newFront(t, nil, func(w *world, _ *Config) { w.err = tt.err })
		res, body := f.get(t, "/")
		if res.StatusCode != tt.status || res.Header.Get(codeHeader) != tt.code || res.Header.Get("Retry-After") != tt.retryAfter {
			t.Errorf("%v: %s %s %q", tt.err, res.Status, res.Header.Get(codeHeader), res.Header.Get("Retry-After"))
		}
		if strings.Contains(body, "secret") {
			t.Errorf("%v: %s", tt.err, body)
		}
	}
}

// A space in the target would become part of the request line; HTTP/2 lets it pass.
func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newDeadLife()}, nil)
	for name, edit := range map[string]func(*http.Request){
		"space in the target": func(r *http.Request) { r.RequestURI = "/a HTTP/1.1" },
		"strange upgrade":     func(r *http.Request) { r.Header.Set("Upgrade", "caf\u00e9") },
	} {
		r := httptest.NewRequest(http.MethodGet, "http://"+aliceHost+"/", nil)
		edit(r)
		w := httptest.NewRecorder()
		f.handler.ServeHTTP(w, r)
		if acquired, _ := f.counts(); w.Code != http.StatusBadRequest || acquired != 0 {
			t.Errorf("%s: %d after %d leases", name, w.Code, acquired)
		}
	}
}

func TestPickError(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil, func(_ *world, c *Config) {
		c.Pick = func(string) (tenement.InstanceID, error) {
			return tenement.InstanceID{}, &tenement.Error{Code: tenement.CodeUnavailable, Op: "pick"}
		}
	})
	r := f.request(t, http.MethodGet, "/", nil)
	r.Host = "api.localhost"
	if res, _ := f.do(t, r); res.StatusCode != http.StatusServiceUnavailable {
		t.Error(res.Status)
	}
}

func TestResponsesPassUnchanged(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		method, response string
		check            func(t *testing.T, res *http.Response, body string)
	}{
		"no type is guessed": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", func(t *testing.T, res *http.Response, body string) {
			if ct, ok := res.Header["Content-Type"]; ok || body != "<html>" {
				t.Errorf("%q %q", ct, body)
			}
		}},
		"hop by hop": {"GET", "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\nX-End: 2\r\nX-End: 3\r\nContent-Length: 0\r\n\r\n", func(t *testing.T, res *http.Response, _ string) {
			for _, name := range []string{"Connection", "X-Hop", "Keep-Alive", "Proxy-Authenticate"} {
				if v, ok := res.Header[name]; ok {
					t.Errorf("%s: %q came through", name, v)
				}
			}
			if got := res.Header["X-End"]; len(got) != 2 || res.Close {
				t.Errorf("X-End %q, close %v", got, res.Close)
			}
		}},
		"HTTP/1.0 until the end": {"GET", "HTTP/1.0 200 OK\r\n\r\nuntil the end", func(t *testing.T, res *http.Response, body string) {
			if body != "until the end" || res.ContentLength != -1 {
				t.Errorf("%q %d", body, res.ContentLength)
			}
		}},
		"chunked": {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", func(t *testing.T, _ *http.Response, body string) {
			if body != "abc" {
				t.Error(body)
			}
		}},
		"HEAD": {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", func(t *testing.T, res *http.Response, body string) {
			if body != "" || res.ContentLength != 1234 {
				t.Errorf("%q %d", body, res.ContentLength)
			}
		}},
		"204": {"GET", "HTTP/1.1 204 No Content\r\n\r\n", func(t *testing.T, res *http.Response, _ string) {
			if res.StatusCode != 204 || res.Header.Get("Transfer-Encoding") != "" {
				t.Error(res.Status, res.Header)
			}
		}},
		"304": {"GET", "HTTP/1.1 304 Not Modified\r\nEtag: \"x\"\r\n\r\n", func(t *testing.T, res *http.Response, _ string) {
			if res.StatusCode != 304 || res.Header.Get("Etag") != `"x"` {
				t.Error(res.Status, res.Header)
			}
		}},
		"426 names the protocol": {"GET", "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n", func(t *testing.T, res *http.Response, _ string) {
			if res.StatusCode != 426 || res.Header.Get("Upgrade") != "websocket" {
				t.Error(res.Status, res.Header)
			}
		}},
		"cookies": {"GET", "HTTP/1.1 302 Found\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", func(t *testing.T, res *http.Response, _ string) {
			if len(res.Header["Set-Cookie"]) != 2 || res.Header.Get("Location") != "/x" {
				t.Error(res.Header)
			}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenant := newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
				if _, err := readHead(r); err == nil {
					_, _ = io.WriteString(c, tt.response)
				}
			})
			f := newFront(t, []*life{tenant}, nil)
			res, body := f.do(t, f.request(t, tt.method, "/", nil))
			tt.check(t, res, body)
		})
	}
}

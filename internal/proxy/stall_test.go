package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"tenement"
)

const stallLimit = 250 * time.Millisecond

func impatient(_ *world, c *Config) { c.ClientStall = stallLimit }

// newSink reads the body and says how much it was.
func newSink(t *testing.T) *life {
	return newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})
}

func TestStalledUpload(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newSink(t)}, impatient)
	for _, lines := range [][]string{
		{"Content-Length: 10", "", "abc"},
		{"Transfer-Encoding: chunked", "", "3", "abc", ""},
		{"Transfer-Encoding: chunked", "", "3", "ab"},
	} {
		c := f.raw(t)
		c.send(append([]string{"POST / HTTP/1.1", "Host: " + aliceHost}, lines...)...)
		res := c.response(http.MethodPost)
		body := readAll(t, res)
		if res.StatusCode != http.StatusRequestTimeout || !res.Close || !strings.Contains(body, "408") {
			t.Errorf("%q: %s, close %v, %s", lines, res.Status, res.Close, body)
		}
	}
	eventually(t, "leases released", func() bool { _, held := f.counts(); return held == 0 })
}

func TestStalledUploadH2C(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newSink(t)}, impatient)
	c := f.newClient(true)
	defer c.CloseIdleConnections()
	body, up := io.Pipe()
	defer up.Close()
	go func() { _, _ = io.WriteString(up, "abc") }()
	res, err := c.Do(f.request(t, http.MethodPost, "/", body))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusRequestTimeout {
		t.Error(res.Status)
	}
}

// Slow is not stalled: every piece gives the client new time.
func TestSlowUpload(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newSink(t)}, func(_ *world, c *Config) { c.ClientStall = time.Second })
	clients(t, f, func(t *testing.T, c *http.Client) {
		body, up := io.Pipe()
		go func() {
			defer up.Close()
			for range 8 {
				<-time.After(time.Second / 5)
				_, _ = io.WriteString(up, "x")
			}
		}()
		res, err := c.Do(f.request(t, http.MethodPost, "/", body))
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, res); res.StatusCode != http.StatusOK || got != "xxxxxxxx" {
			t.Errorf("%s %q", res.Status, got)
		}
	})
}

// No deadline outlives what it was set for: neither a long poll whose body has
// been read, nor a quiet stream in either direction, nor the next request of the
// connection is cut.
func TestQuietIsNotStalled(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		if r.URL.Path == "/talk" {
			_ = control.Flush()
		}
		body, err := io.ReadAll(r.Body)
		_, _ = w.Write(body)
		if r.URL.Path == "/stream" {
			_ = control.Flush()
		}
		select {
		case <-time.After(2 * stallLimit):
		case <-r.Context().Done():
			t.Errorf("%s: cut off, %v", r.URL, err)
		}
		hello(w, r)
	})}, impatient)
	clients(t, f, func(t *testing.T, c *http.Client) {
		for _, path := range []string{"/poll", "/stream", "/talk", "/poll"} {
			body, up := io.Pipe()
			go func() {
				_, _ = io.WriteString(up, "a")
				if path == "/talk" {
					<-time.After(2 * stallLimit)
				}
				_, _ = io.WriteString(up, "b")
				up.Close()
			}()
			res, err := c.Do(f.request(t, http.MethodPost, path, body))
			if err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, res); got != "abhello" {
				t.Errorf("%s: %s %q", path, res.Status, got)
			}
			<-time.After(2 * stallLimit) // the connection rests longer than any deadline
		}
	})
	if acquired, _ := f.counts(); acquired != 8 {
		t.Errorf("%d leases for 8 requests", acquired)
	}
}

// A client that does not read the response is cut off.
func TestClientDoesNotRead(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, _ *http.Request) {
		block := make([]byte, 1<<20)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})}, impatient)
	c := f.raw(t)
	c.send("GET / HTTP/1.1", "Host: "+aliceHost, "", "")
	eventually(t, "lease taken", func() bool { n, _ := f.counts(); return n == 1 })
	eventually(t, "lease released", func() bool { _, held := f.counts(); return held == 0 })

	h2 := f.newClient(true)
	defer h2.CloseIdleConnections()
	res, err := h2.Do(f.request(t, http.MethodGet, "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	eventually(t, "h2c lease released", func() bool { _, held := f.counts(); return held == 0 })
}

// A client that leaves in the middle of its request gets no answer and costs none.
func TestClientLeavesDuringUpload(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newSink(t)}, nil)
	c := f.raw(t)
	c.send("POST / HTTP/1.1", "Host: "+aliceHost, "Content-Length: 10", "", "abc")
	eventually(t, "lease taken", func() bool { n, _ := f.counts(); return n == 1 })
	c.Conn.(*net.TCPConn).CloseWrite()
	if rest, _ := io.ReadAll(c.Reader); len(rest) > 0 {
		t.Errorf("got %q", rest)
	}
	eventually(t, "lease released", func() bool { _, held := f.counts(); return held == 0 })
}

func TestMalformedChunks(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newSink(t)}, nil)
	c := f.raw(t)
	c.send("POST / HTTP/1.1", "Host: "+aliceHost, "Transfer-Encoding: chunked", "", "xyz", "")
	if res := c.response(http.MethodPost); res.StatusCode != http.StatusBadRequest || !res.Close {
		t.Errorf("%s, close %v", res.Status, res.Close)
	}
}

func TestMaxBody(t *testing.T) {
	t.Parallel()
	const limit = 10
	for _, early := range []bool{true, false} {
		var whole, broken int
		tenant := newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				broken++
				return
			}
			whole++
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		})
		f := newFront(t, []*life{tenant}, func(w *world, c *Config) {
			w.service.MaxBody = limit
			if early {
				c.MaxBody = func(string) tenement.Bytes { return limit }
			}
		})
		post := func(body io.Reader) int {
			res, _ := f.do(t, f.request(t, http.MethodPost, "/", body))
			return res.StatusCode
		}
		just, over := strings.Repeat("x", limit), strings.Repeat("x", limit+1)
		if got := post(strings.NewReader(just)); got != 200 {
			t.Errorf("just, announced: %d", got)
		}
		if got := post(io.NopCloser(strings.NewReader(just))); got != 200 {
			t.Errorf("just, streamed: %d", got)
		}
		if got := post(io.NopCloser(strings.NewReader(over))); got != 413 {
			t.Errorf("over, streamed: %d", got)
		}
		before, _ := f.counts()
		if got := post(strings.NewReader(over)); got != 413 {
			t.Errorf("over, announced: %d", got)
		}
		if after, _ := f.counts(); early && after != before {
			t.Error("a request that announces too much woke the instance")
		}
		c := f.raw(t)
		c.send("POST / HTTP/1.1", "Host: "+aliceHost, "Content-Length: 11", "", "x")
		if res := c.response(http.MethodPost); res.StatusCode != 413 || !res.Close {
			t.Errorf("over, announced and not sent: %s, close %v", res.Status, res.Close)
		}
		eventually(t, "streamed body broken off", func() bool { _, held := f.counts(); return held == 0 })
		if whole != 2 {
			t.Errorf("%d requests looked whole to the tenant, %d broken", whole, broken)
		}
	}
}

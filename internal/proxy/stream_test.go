package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// clients runs a test over HTTP/1.1 and over h2c.
func clients(t *testing.T, f *front, test func(t *testing.T, c *http.Client)) {
	for name, h2c := range map[string]bool{"HTTP/1.1": false, "h2c": true} {
		t.Run(name, func(t *testing.T) {
			c := f.newClient(h2c)
			defer c.CloseIdleConnections()
			test(t, c)
		})
	}
}

// Events arrive one by one, while the lease is held; it ends with the stream.
func TestEventStream(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for event := range next {
			if event == "" {
				return
			}
			fmt.Fprintf(w, "data: %s\n\n", event)
			w.(http.Flusher).Flush()
		}
	})}, nil)
	clients(t, f, func(t *testing.T, c *http.Client) {
		res, err := c.Do(f.request(t, http.MethodGet, "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		events := bufio.NewReader(res.Body)
		for i := range 3 {
			next <- fmt.Sprint(i)
			line, err := events.ReadString('\n')
			_, _ = events.ReadString('\n')
			if want := fmt.Sprintf("data: %d\n", i); err != nil || line != want {
				t.Fatalf("got %q %v", line, err)
			}
			if _, held := f.counts(); held != 1 {
				t.Errorf("%d leases held during a stream", held)
			}
		}
		next <- ""
		if _, err := events.ReadByte(); err != io.EOF {
			t.Errorf("end of stream: %v", err)
		}
		eventually(t, "lease released", func() bool { _, held := f.counts(); return held == 0 })
	})
}

// A client that leaves a stream ends it for the tenant, too.
func TestClientLeavesStream(t *testing.T) {
	t.Parallel()
	left := make(chan struct{}, 2)
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		left <- struct{}{}
	})}, nil)
	clients(t, f, func(t *testing.T, c *http.Client) {
		res, err := c.Do(f.request(t, http.MethodGet, "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		wait(t, "tenant told", left)
		eventually(t, "lease released", func() bool { _, held := f.counts(); return held == 0 })
	})
}

// Both directions flow at once: each piece is answered before the next is sent.
func TestBothDirectionsAtOnce(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		_ = control.Flush()
		in := bufio.NewReader(r.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(w, strings.ToUpper(line))
			_ = control.Flush()
		}
	})}, nil)
	clients(t, f, func(t *testing.T, c *http.Client) {
		body, up := io.Pipe()
		res, err := c.Do(f.request(t, http.MethodPost, "/", body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		down := bufio.NewReader(res.Body)
		for i := range 3 {
			fmt.Fprintf(up, "line %d\n", i)
			if line, err := down.ReadString('\n'); err != nil || line != fmt.Sprintf("LINE %d\n", i) {
				t.Fatalf("got %q %v", line, err)
			}
		}
		up.Close()
		if _, err := down.ReadByte(); err != io.EOF {
			t.Errorf("end: %v", err)
		}
	})
}

// The first bytes of a response of known length do not wait for the last.
func TestKnownLengthIsNotBuffered(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "4")
		_, _ = io.WriteString(w, "ab")
		w.(http.Flusher).Flush()
		<-more
		_, _ = io.WriteString(w, "cd")
	})}, nil)
	res, err := f.client.Do(f.request(t, http.MethodGet, "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	two := make([]byte, 2)
	if _, err := io.ReadFull(res.Body, two); err != nil || string(two) != "ab" {
		t.Errorf("%q %v", two, err)
	}
	close(more)
	if rest := readAll(t, res); rest != "cd" {
		t.Errorf("%q", rest)
	}
}

func TestTrailers(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", body, r.Trailer.Get("X-Sum"))
		w.(http.Flusher).Flush()
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"X-Late", "1")
	})}, nil)
	clients(t, f, func(t *testing.T, c *http.Client) {
		for _, length := range []int64{-1, 4} {
			r := f.request(t, http.MethodPost, "/", io.NopCloser(strings.NewReader("body")))
			if r.ContentLength = length; length >= 0 && c.Transport.(*http.Transport).Protocols.HTTP1() {
				continue // HTTP/1.1 cannot send both
			}
			r.Trailer = http.Header{"X-Sum": {"42"}}
			res, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body := readAll(t, res)
			if want := (http.Header{"Grpc-Status": {"0"}, "X-Late": {"1"}}); body != "body 42" || !cmp.Equal(want, res.Trailer) {
				t.Errorf("length %d: %q %v", length, body, res.Trailer)
			}
		}
	})
}

// Trailers that were not announced arrive, but not those that could pass for
// what stands in a header.
func TestUnannouncedTrailers(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.Trailer)
	})}, nil)
	c := f.raw(t)
	c.send("POST / HTTP/1.1", "Host: "+aliceHost, "Transfer-Encoding: chunked", "", "1", "x", "0",
		"X-Sum: 42", "Authorization: root", "Content-Length: 5", "X-Forwarded-For: 6.6.6.6", "", "")
	if body := readAll(t, c.response(http.MethodPost)); body != "map[X-Sum:[42]]" {
		t.Error(body)
	}
}

func TestEarlyHints(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		hello(w, r)
	})}, nil)
	clients(t, f, func(t *testing.T, c *http.Client) {
		var hints []string
		r := f.request(t, http.MethodGet, "/", nil)
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, header["Link"]))
				return nil
			},
		}))
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if body := readAll(t, res); body != "hello" || res.Header.Get("Link") != "" || len(hints) != 1 || hints[0] != "103 [</a.css>; rel=preload]" {
			t.Errorf("%q %v %q", body, res.Header, hints)
		}
	})
	c := f.raw(t)
	c.send("GET / HTTP/1.0", "Host: "+aliceHost, "", "")
	if res := c.response(http.MethodGet); res.StatusCode != http.StatusOK {
		t.Errorf("HTTP/1.0 client got %s", res.Status)
	}
}

// A tenant that refuses by the header never lets the client send the body.
func TestExpectRefused(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if head, err := readHead(r); err != nil || !strings.Contains(head, "Expect: 100-continue\r\n") {
			t.Errorf("%q %v", head, err)
		}
		_, _ = io.WriteString(c, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, r) // it would keep the connection
	})}, nil)
	for range 20 { // what must not happen is a race
		c := f.raw(t)
		c.send("POST / HTTP/1.1", "Host: "+aliceHost, "Expect: 100-continue", "Content-Length: 5", "", "")
		if res := c.response(http.MethodPost); res.StatusCode != http.StatusUnauthorized || !res.Close {
			t.Fatalf("%s, close %v", res.Status, res.Close)
		}
	}
}

func TestExpectAccepted(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	})}, nil)
	c := f.raw(t)
	for range 2 { // the connection stays good
		c.send("POST / HTTP/1.1", "Host: "+aliceHost, "Expect: 100-continue", "Content-Length: 5", "", "")
		if res := c.response(http.MethodPost); res.StatusCode != http.StatusContinue {
			t.Fatal(res.Status)
		}
		c.send("hello")
		res := c.response(http.MethodPost)
		if body := readAll(t, res); res.StatusCode != http.StatusOK || body != "hello" {
			t.Errorf("%s %q", res.Status, body)
		}
	}
}

// An answer that does not wait for the body reaches a client that still sends it,
// and what it goes on to send is never taken for a request.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, err := readHead(r); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
			_, _ = io.Copy(io.Discard, r)
		}
	})}, nil)
	for _, framing := range []string{"Content-Length: 1000", "Transfer-Encoding: chunked"} {
		c := f.raw(t)
		c.send("POST / HTTP/1.1", "Host: "+aliceHost, framing, "", "100", "abc")
		res := c.response(http.MethodPost)
		if body := readAll(t, res); res.StatusCode != http.StatusForbidden || body != "no" {
			t.Errorf("%s: %s %q", framing, res.Status, body)
		}
		_, _ = io.WriteString(c.Conn, "\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: "+aliceHost+"\r\n\r\n")
		c.Conn.(*net.TCPConn).CloseWrite()
		if rest, _ := io.ReadAll(c.Reader); len(rest) > 0 {
			t.Errorf("%s: the rest of a body was answered: %q", framing, rest)
		}
	}
}

func TestLargeBodies(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newTenant(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	})}, nil)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	clients(t, f, func(t *testing.T, c *http.Client) {
		for _, body := range []io.Reader{bytes.NewReader(want), io.NopCloser(bytes.NewReader(want))} {
			res, err := c.Do(f.request(t, http.MethodPut, "/", body))
			if err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, res); got != string(want) {
				t.Errorf("%d bytes became %d", len(want), len(got))
			}
		}
	})
}

// A response that breaks off must not look complete.
func TestTenantBreaksOff(t *testing.T) {
	t.Parallel()
	for _, head := range []string{"Content-Length: 100", "Transfer-Encoding: chunked"} {
		f := newFront(t, []*life{newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
			if _, err := readHead(r); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+head+"\r\n\r\n4\r\nabcd\r\n")
			}
		})}, nil)
		clients(t, f, func(t *testing.T, c *http.Client) {
			res, err := c.Do(f.request(t, http.MethodGet, "/", nil))
			if err == nil {
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if err == nil {
				t.Errorf("%s: broken off, and the client does not know", head)
			}
		})
	}
}

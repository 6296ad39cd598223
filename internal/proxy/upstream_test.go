package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pipes makes connections whose other ends serve answers, and counts those that are open.
type pipes struct {
	serve func(c net.Conn, r *bufio.Reader)
	made  atomic.Int32
	open  atomic.Int32
}

func (p *pipes) dial(context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.made.Add(1)
	p.open.Add(1)
	go func() {
		defer p.open.Add(-1)
		defer theirs.Close()
		p.serve(theirs, bufio.NewReader(theirs))
	}()
	return ours, nil
}

// answering answers every request on a connection, after its body.
func answering(answer string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

func upstreamRequest(t testing.TB, method string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+upstreamHost+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// exchangeOver sends one request and reads the whole response.
func exchangeOver(t testing.TB, tr http.RoundTripper, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	return res, readAll(t, res)
}

func TestConnectionIsUsedAgain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		method, body, answer string
		made                 int32
	}{
		"length":            {"GET", "", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1},
		"chunks":            {"GET", "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 1},
		"empty":             {"GET", "", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 1},
		"no content":        {"DELETE", "", "HTTP/1.1 204 No Content\r\n\r\n", 1},
		"HEAD":              {"HEAD", "", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 1},
		"body sent":         {"POST", "hello", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1},
		"interim":           {"GET", "", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1},
		"asks to close":     {"GET", "", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 3},
		"HTTP/1.0":          {"GET", "", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 3},
		"more than was due": {"GET", "", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &pipes{serve: answering(tt.answer)}
			tr := NewTransport(p.dial)
			for range 3 {
				r := upstreamRequest(t, tt.method, nil)
				if tt.body != "" {
					r = upstreamRequest(t, tt.method, strings.NewReader(tt.body))
				}
				_, body := exchangeOver(t, tr, r)
				if strings.Contains(tt.answer, "ok") && body != "ok" && tt.method != "HEAD" {
					t.Errorf("body %q", body)
				}
			}
			if n := p.made.Load(); n != tt.made {
				t.Errorf("%d connections for three requests, want %d", n, tt.made)
			}
			tr.CloseIdleConnections()
			eventually(t, "connections closed", func() bool { return p.open.Load() == 0 })
		})
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const requests = maxIdleConns + 3
		var arrived sync.WaitGroup
		arrived.Add(requests)
		p := &pipes{serve: func(c net.Conn, r *bufio.Reader) {
			if _, err := readHead(r); err != nil {
				return
			}
			arrived.Done()
			arrived.Wait()
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			_, _ = readHead(r)
		}}
		tr := NewTransport(p.dial)
		var asking sync.WaitGroup
		for range requests {
			asking.Go(func() { exchangeOver(t, tr, upstreamRequest(t, http.MethodGet, nil)) })
		}
		asking.Wait()
		synctest.Wait()
		if n := p.open.Load(); n != maxIdleConns {
			t.Errorf("%d connections are kept, want %d", n, maxIdleConns)
		}
		<-time.After(idleConnTimeout)
		synctest.Wait()
		if n := p.open.Load(); n != 0 {
			t.Errorf("%d connections are kept after %v", n, idleConnTimeout)
		}
	})
}

// TestOfferedConnection: it has the next request, if it is still good, and is no kept one: a
// process that takes the request and dies is not asked again.
func TestOfferedConnection(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		serve func(n int, c net.Conn, r *bufio.Reader)
		made  int32
		fails bool
	}{
		"good": {answeringRaw, 1, false},
		"closed": {func(n int, c net.Conn, r *bufio.Reader) {
			if n > 0 {
				answeringRaw(n, c, r)
			}
		}, 2, false},
		"dies of it": {func(_ int, _ net.Conn, r *bufio.Reader) { _, _ = readHead(r) }, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var made atomic.Int32
			ended := make(chan struct{}, 2)
			tenant := newRawTenant(t, func(n int, c net.Conn, r *bufio.Reader) {
				made.Add(1)
				tt.serve(n, c, r)
				c.Close()
				ended <- struct{}{}
			})
			defer tenant.tr.CloseIdleConnections()
			conn, err := tenant.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if name == "closed" {
				wait(t, "the process closes", ended)
			}
			tenant.tr.Offer(conn)
			res, err := tenant.tr.RoundTrip(upstreamRequest(t, http.MethodGet, nil))
			if err == nil {
				res.Body.Close()
			}
			if (err != nil) != tt.fails || made.Load() != tt.made {
				t.Errorf("error %v, %d connections", err, made.Load())
			}
		})
	}
}

func answeringRaw(_ int, c net.Conn, r *bufio.Reader) {
	if _, err := readHead(r); err == nil {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}
}

// A connection that the process has closed is not tried: what cannot be sent twice would
// be lost.
func TestClosedConnectionIsNotTried(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 1)
	tenant := newRawTenant(t, func(n int, c net.Conn, r *bufio.Reader) {
		for {
			if _, err := readHead(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			if n == 0 {
				c.Close()
				closed <- struct{}{}
				return
			}
		}
	})
	defer tenant.tr.CloseIdleConnections()
	exchangeOver(t, tenant.tr, upstreamRequest(t, http.MethodPost, nil))
	wait(t, "the process closes", closed)
	if res, _ := exchangeOver(t, tenant.tr, upstreamRequest(t, http.MethodPost, nil)); res.StatusCode != http.StatusOK {
		t.Error(res.Status)
	}
}

// The end of the request's context ends whatever is under way.
func TestContextEndsExchange(t *testing.T) {
	t.Parallel()
	why := errors.New("why")
	for name, answer := range map[string]string{
		"before the header": "",
		"within the header": "HTTP/1.1 200 OK\r\nContent-",
		"within the body":   "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan struct{})
			p := &pipes{serve: func(c net.Conn, r *bufio.Reader) {
				_, _ = readHead(r)
				_, _ = io.WriteString(c, answer)
				close(asked)
				_, _ = readHead(r)
			}}
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() { <-asked; cancel(why) }()
			res, err := NewTransport(p.dial).RoundTrip(upstreamRequest(t, http.MethodGet, nil).WithContext(ctx))
			if err == nil {
				_, err = io.ReadAll(res.Body)
			}
			if !errors.Is(err, why) {
				t.Error(err)
			}
			eventually(t, "connection closed", func() bool { return p.open.Load() == 0 })
		})
	}
}

func TestResponseHeaderIsBounded(t *testing.T) {
	t.Parallel()
	for name, endless := range map[string]string{
		"fields":  "X-Field: " + strings.Repeat("x", 1000) + "\r\n",
		"interim": "\r\nHTTP/1.1 103 Early Hints\r\nX-Field: " + strings.Repeat("x", 1000) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &pipes{serve: func(c net.Conn, r *bufio.Reader) {
				_, _ = readHead(r)
				_, err := io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n")
				for err == nil {
					_, err = io.WriteString(c, endless)
				}
			}}
			_, err := NewTransport(p.dial).RoundTrip(upstreamRequest(t, http.MethodGet, nil))
			if !errors.Is(err, errHeaderTooLong) {
				t.Error(err)
			}
		})
	}
}

// rawAnswers are what tenants may say, rightly or wrongly.
var rawAnswers = []string{
	"", "hello", "HTTP/1.1 200 OK\r\n\r\nuntil the end",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore",
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
	"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nok\r\n0\r\nX-T: v\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n2\r\nok\r\n",
	"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.0 500 No\r\nA: b\r\n\r\nbody",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
	"HTTP/1.1 99999999 OK\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
}

// FuzzUpstream compares what comes of any bytes that a process may answer with what the
// standard library's transport makes of them.
func FuzzUpstream(f *testing.F) {
	for _, answer := range rawAnswers {
		f.Add(answer, false)
		f.Add(answer, true)
	}
	f.Fuzz(func(t *testing.T, answer string, head bool) {
		if strings.Contains(answer, " 101") {
			t.Skip("a switch of protocols that nobody asked for is the reverse proxy's to refuse")
		}
		p := &pipes{serve: func(c net.Conn, r *bufio.Reader) {
			_, _ = readHead(r)
			_, _ = io.WriteString(c, answer)
		}}
		theirs := &http.Transport{
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx) },
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxResponseHeader,
		}
		defer theirs.CloseIdleConnections()
		ours := NewTransport(p.dial)
		defer ours.CloseIdleConnections()
		if want, got := outcome(t, theirs, head), outcome(t, ours, head); want != got {
			t.Errorf("the standard library's transport makes of it\n%s\nand ours\n%s", want, got)
		}
	})
}

// outcome is all that can be seen of one exchange.
func outcome(t testing.TB, tr http.RoundTripper, head bool) string {
	method := http.MethodGet
	if head {
		method = http.MethodHead
	}
	res, err := tr.RoundTrip(upstreamRequest(t, method, nil))
	if err != nil || res.StatusCode < 100 {
		return "no response"
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return fmt.Sprintf("%s %s %v %d %v %v %q %v %v", res.Proto, res.Status, res.Header, res.ContentLength, res.TransferEncoding, res.Close, body, err != nil, res.Trailer)
}

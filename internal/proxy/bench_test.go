package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"tenement"
	"tenement/internal/route"
)

func nowhere(string, string) route.Target { return route.Target{} }

// blank is a response that is thrown away.
type blank struct{ header http.Header }

func (b *blank) Header() http.Header         { return b.header }
func (b *blank) WriteHeader(int)             {}
func (b *blank) Write(p []byte) (int, error) { return len(p), nil }
func (b *blank) WriteString(s string) (int, error) {
	return len(s), nil
}

// steady is a lease that costs nothing.
type steady struct {
	service   tenement.Service
	transport tenement.Transport
}

func (s *steady) Service() *tenement.Service   { return &s.service }
func (s *steady) Transport() http.RoundTripper { return s.transport }
func (s *steady) Gone() <-chan struct{}        { return nil }
func (s *steady) PID() int                     { return 0 }

func (s *steady) Dial(context.Context) (net.Conn, error) { return nil, errors.ErrUnsupported }

func (s *steady) Release() {}

// BenchmarkProxy sends small requests one after another over one connection:
// without a proxy, through the standard library's, and through ours.
func BenchmarkProxy(b *testing.B) {
	kilobyte := []byte(strings.Repeat("x", 1024))
	tenant := newTenant(b, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(kilobyte) })
	transport := NewTransport(tenant.dial)
	defer transport.CloseIdleConnections()
	lease := &steady{transport: transport}
	bare := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: upstreamHost})
			p.Out.Host = p.In.Host
			p.SetXForwarded()
		},
	}
	ours := New(Config{
		Lookup:  func(string, string) route.Target { return route.Target{Kind: route.Instance, ID: alice} },
		Acquire: func(context.Context, tenement.InstanceID) (tenement.Lease, error) { return lease, nil },
		Ready:   func(context.Context, tenement.InstanceID) (tenement.Lease, bool) { return lease, true },
	})
	none := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(kilobyte) })
	for _, bench := range []struct {
		name    string
		direct  *Handler
		handler http.Handler
	}{{"none", nil, none}, {"httputil", nil, bare}, {"net/http", nil, ours}, {"direct", ours, ours}} {
		b.Run(bench.name, func(b *testing.B) {
			addr := serve(b, bench.direct, bench.handler)
			client := &http.Client{Timeout: patience}
			b.ReportAllocs()
			for b.Loop() {
				res, err := client.Get("http://" + addr)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
}

// serve runs a front on a port of its own.
func serve(t testing.TB, direct *Handler, all http.Handler) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := newServer(direct, all, slog.New(slog.DiscardHandler))
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close(); <-served })
	return listener.Addr().String()
}

func BenchmarkUnknownHost(b *testing.B) {
	h := New(Config{Lookup: nowhere})
	r := httptest.NewRequest(http.MethodGet, "http://nobody.example.com/", nil)
	w := &blank{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
}

// BenchmarkTwoPieces has a tenant write each response in two pieces, the second of which
// it holds back until the first was acknowledged, as Python's http.server does.
func BenchmarkTwoPieces(b *testing.B) {
	tenant := newRawTenant(b, func(_ int, c net.Conn, r *bufio.Reader) {
		_ = c.(*net.TCPConn).SetNoDelay(false)
		for {
			if _, err := readHead(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
			_, _ = io.WriteString(c, "hello")
		}
	})
	standard := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return tenant.dial(ctx) }}
	defer standard.CloseIdleConnections()
	for _, bench := range []struct {
		name      string
		transport interface {
			http.RoundTripper
			CloseIdleConnections()
		}
	}{{"standard", standard}, {"tenement", tenant.tr}} {
		b.Run(bench.name, func(b *testing.B) {
			for b.Loop() {
				exchangeOver(b, bench.transport, upstreamRequest(b, http.MethodGet, nil))
			}
			bench.transport.CloseIdleConnections()
		})
	}
}

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
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tenement"
	"tenement/internal/route"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

var alice = tenement.InstanceID{Service: "api", Name: "alice"}

const aliceHost = "alice.api.localhost"

// life is one process of a tenant as the proxy sees it.
type life struct {
	dial func(ctx context.Context) (net.Conn, error)
	gone chan struct{}
	once sync.Once
	tr   tenement.Transport
}

func newLife(addr string) *life {
	l := &life{gone: make(chan struct{})}
	l.dial = func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
	l.tr = NewTransport(func(ctx context.Context) (net.Conn, error) { return l.dial(ctx) })
	return l
}

func (l *life) die() { l.once.Do(func() { close(l.gone) }) }

// world is a fake supervisor: it hands out leases to the lives in order, moves on
// when one is gone, and counts.
type world struct {
	t       testing.TB
	service tenement.Service

	mu       sync.Mutex
	lives    []*life
	err      error // of Acquire
	acquired int
	held     int
	tooOften int
}

type fakeLease struct {
	world    *world
	life     *life
	released bool
}

func (w *world) acquire(ctx context.Context, id tenement.InstanceID) (tenement.Lease, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	if err := ctx.Err(); err != nil {
		return nil, &tenement.Error{Code: tenement.CodeCanceled, Op: "acquire", Err: err}
	}
	for len(w.lives) > 1 {
		select {
		case <-w.lives[0].gone:
			w.lives = w.lives[1:]
			continue
		default:
		}
		break
	}
	w.acquired++
	w.held++
	return &fakeLease{world: w, life: w.lives[0]}, nil
}

func (l *fakeLease) Service() *tenement.Service   { return &l.world.service }
func (l *fakeLease) Transport() http.RoundTripper { return l.life.tr }
func (l *fakeLease) Gone() <-chan struct{}        { return l.life.gone }
func (l *fakeLease) PID() int                     { return 0 }

func (l *fakeLease) Dial(context.Context) (net.Conn, error) { return nil, errors.ErrUnsupported }
func (l *fakeLease) Release() {
	l.world.mu.Lock()
	defer l.world.mu.Unlock()
	if l.released {
		l.world.tooOften++
		return
	}
	l.released = true
	l.world.held--
}

func (w *world) counts() (acquired, held int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acquired, w.held
}

func (w *world) inUse() bool {
	_, held := w.counts()
	return held > 0
}

// front is a whole proxy on a port of its own.
type front struct {
	*world
	addr     string
	handler  *Handler
	handlers atomic.Int64 // that run
	client   *http.Client
}

// newFront serves the lives as api:alice. The configuration may be changed by edit.
func newFront(t testing.TB, lives []*life, edit func(*world, *Config)) *front {
	t.Helper()
	ctx := t.Context()
	w := &world{t: t, lives: lives}
	f := &front{world: w}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	if _, fuzzing := t.(*testing.F); fuzzing { // which has no use of its own for it
		log = slog.New(slog.DiscardHandler)
	}
	c := Config{
		Lookup: func(host, _ string) route.Target {
			switch host, _, _ = strings.Cut(host, ":"); host {
			case aliceHost:
				return route.Target{Kind: route.Instance, ID: alice}
			case "api.localhost":
				return route.Target{Kind: route.Service, ID: tenement.InstanceID{Service: "api"}}
			case "localhost":
				return route.Target{Kind: route.Admin}
			}
			return route.Target{}
		},
		Pick:    func(string) (tenement.InstanceID, error) { return alice, nil },
		Acquire: w.acquire,
		Log:     log,
	}
	c.Ready = func(_ context.Context, id tenement.InstanceID) (tenement.Lease, bool) {
		if len(lives) == 0 {
			return nil, false
		}
		if _, ours := lives[0].tr.(*upstream); !ours {
			return nil, false
		}
		lease, err := c.Acquire(ctx, id)
		return lease, err == nil
	}
	if edit != nil {
		edit(w, &c)
	}
	h := New(c)
	f.handler = h
	server := newServer(h, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		f.handlers.Add(1)
		defer f.handlers.Add(-1)
		h.ServeHTTP(rw, r)
	}), log)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = listener.Addr().String()
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	f.client = f.newClient(false)
	t.Cleanup(func() {
		f.client.CloseIdleConnections()
		server.Close()
		<-served
		for _, l := range lives {
			l.tr.CloseIdleConnections()
		}
		for begun := time.Now(); (w.inUse() || f.handlers.Load() > 0) && time.Since(begun) < patience; {
			runtime.Gosched()
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.held != 0 || w.tooOften != 0 {
			t.Errorf("of %d leases, %d were never released and %d twice", w.acquired, w.held, w.tooOften)
		}
	})
	return f
}

// newClient makes a client that reaches the front under any host name.
func (f *front) newClient(h2c bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2c)
	protocols.SetUnencryptedHTTP2(h2c)
	var d net.Dialer
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return d.DialContext(ctx, "tcp", f.addr)
			},
			Protocols:             protocols,
			DisableCompression:    true,
			ExpectContinueTimeout: patience,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (f *front) request(t testing.TB, method, path string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+aliceHost+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// do sends r and reads the whole response.
func (f *front) do(t testing.TB, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := f.client.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return res, readAll(t, res)
}

func (f *front) get(t testing.TB, path string) (*http.Response, string) {
	t.Helper()
	return f.do(t, f.request(t, http.MethodGet, path, nil))
}

func readAll(t testing.TB, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read body: %v", err)
	}
	return string(body)
}

// newTenant runs a tenant on net/http.
func newTenant(t testing.TB, h http.HandlerFunc) *life {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = discardLog
	server.Start()
	t.Cleanup(server.Close)
	return newLife(server.Listener.Addr().String())
}

// newRawTenant runs a tenant that speaks for itself; n counts connections from 0.
func newRawTenant(t testing.TB, serve func(n int, c net.Conn, r *bufio.Reader)) *life {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	accepting := make(chan struct{})
	ctx := t.Context()
	go func() {
		defer close(accepting)
		for n := 0; ; n++ {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			stop := context.AfterFunc(ctx, func() { c.Close() })
			go func() {
				defer conns.Done()
				defer stop()
				defer c.Close()
				serve(n, c, bufio.NewReader(c))
			}()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-accepting; conns.Wait() })
	return newLife(listener.Addr().String())
}

// newDeadLife refuses connections.
func newDeadLife() *life {
	l := newLife("")
	l.dial = func(context.Context) (net.Conn, error) { return nil, errors.New("connection refused") }
	return l
}

// readHead reads a message's header, without the empty line.
func readHead(r *bufio.Reader) (string, error) {
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil || line == "\r\n" {
			return head.String(), err
		}
		head.WriteString(line)
	}
}

// conn is a client that writes its own bytes.
type conn struct {
	net.Conn
	*bufio.Reader
	t testing.TB
}

func (c *conn) Read(p []byte) (int, error) { return c.Reader.Read(p) }

func (f *front) raw(t testing.TB) *conn {
	t.Helper()
	nc, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	return &conn{Conn: nc, Reader: bufio.NewReader(nc), t: t}
}

// send writes lines joined by CRLF, as they are.
func (c *conn) send(lines ...string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, strings.Join(lines, "\r\n")); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// response reads one response, interim ones included, but not its body.
func (c *conn) response(method string) *http.Response {
	c.t.Helper()
	res, err := http.ReadResponse(c.Reader, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("read response: %v", err)
	}
	return res
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func wait[T any](t testing.TB, what string, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
	}
	return v
}

// Package proxy serves tenant traffic: find the instance, take a lease, forward, release.
package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"
	"unicode"

	"tenement"
	"tenement/internal/route"
	"tenement/internal/tracing"
)

// defaultClientStall is nginx's client_body_timeout and send_timeout.
const defaultClientStall = 60 * time.Second

// copyBuffer is what a response is copied with; pooled, because every response needs one.
const copyBuffer = 32 << 10

// Config is what a [Handler] needs. Lookup, Pick and Acquire are required; all
// functions are called concurrently.
type Config struct {
	// Lookup says what a host and a decoded path mean; without allocation, if
	// unknown hosts are to cost nothing.
	Lookup func(host, path string) route.Target

	// Pick chooses the instance that answers for a service's own host.
	Pick func(service string) (tenement.InstanceID, error)

	// Acquire waits, as long as it sees fit and ctx lives, until the instance has
	// a process that serves. Its errors are answered by their code.
	Acquire func(ctx context.Context, id tenement.InstanceID) (tenement.Lease, error)

	// Ready is Acquire for an instance that has a process that serves, without allocation, or
	// that will in an instant, for it does not watch the client; false: it has none. When
	// nil, everything goes through Acquire.
	Ready func(ctx context.Context, id tenement.InstanceID) (tenement.Lease, bool)

	// Leaving reports whether every connection is to be closed, in good order, behind its
	// next response; nil: never.
	Leaving func() bool

	// MaxBody is the largest request body of a service, 0 for any, so that one
	// which announces more is refused before it wakes anything. When nil, such a
	// request is refused once the instance is awake.
	MaxBody func(service string) tenement.Bytes

	// Resting is the recipe of an instance that has no process which serves, nil for any
	// other: every request asks. Asleep is asked only if a rule of that recipe has the
	// request not wake the instance: whether it is registered and sleeps, and when it was
	// known to be well last. When Resting is nil, every request wakes.
	Resting func(id tenement.InstanceID) *tenement.Service
	Asleep  func(ctx context.Context, id tenement.InstanceID) (healthyAt time.Time, ok bool)

	// Served is told of every request when it has been dealt with, but for those that Admin
	// serves; it must not wait. FirstByte is told how long it took, from a lease that was
	// waited for, to the first byte of a response. Nil: nobody is told.
	Served    func(Served)
	FirstByte func(w *tenement.WakeRecord, took time.Duration)

	// Tracer records the requests that Served is told of, if they are for an instance or a
	// service. When nil, none is, and what they say of traces passes through.
	Tracer *tracing.Tracer

	// Admin serves what Lookup calls [route.Admin]; when nil, nothing is there.
	Admin http.Handler

	// TrustedProxies may speak for their clients: what they say in X-Forwarded-*
	// and Forwarded is kept and added to. Anybody else's is dropped. Nil trusts nobody.
	TrustedProxies func() []netip.Prefix

	// ClientStall is how long a client may leave us waiting, for the next piece of
	// a request body before the response has begun, or with a write it does not
	// take in. 0 means 60 s. Quiet streams are no stall.
	ClientStall time.Duration

	Log *slog.Logger // nil: nothing is logged
}

// Handler is the data path. It is safe for concurrent use and keeps nothing per
// instance. It holds a lease from before the first byte is forwarded until the
// exchange has wholly ended, an upgraded connection included.
type Handler struct {
	config  Config
	log     *slog.Logger
	buffers bufferPool
}

// New makes the handler.
func New(c Config) *Handler {
	if c.ClientStall <= 0 {
		c.ClientStall = defaultClientStall
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Handler{config: c, log: c.Log}
}

// ServeHTTP answers one request. It panics with [http.ErrAbortHandler] when only
// breaking the connection off tells the client the truth.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	var out *responseWriter
	defer func() {
		if p := recover(); p != nil {
			h.panicked(w, out, r, p)
		}
	}()

	if leaving := h.config.Leaving; leaving != nil && leaving() {
		w.Header().Set("Connection", "close")
	}
	target := h.config.Lookup(r.Host, r.URL.Path)
	if target.Kind == route.None || target.Kind == route.Admin && h.config.Admin == nil {
		refuse(w, r, notFound)
		h.tell(Served{Status: notFound.status, Begun: begun, request: r})
		return
	}
	if refusal := check(r); refusal != nil {
		refuse(w, r, refusal)
		h.tell(Served{Status: refusal.status, Begun: begun, request: r})
		return
	}
	if target.Kind == route.Admin {
		out = newResponseWriter(w, r, h.config.ClientStall, func() {})
		defer out.end()
		h.config.Admin.ServeHTTP(out, r)
		return
	}
	x := newExchange(h, w, r, begun)
	out = x.writer
	defer x.end()
	x.serve(target) //nolint:contextcheck // the request brings its own
}

// check finds what must not be forwarded: CONNECT asks for a tunnel to anywhere, a
// space in the target (possible in HTTP/2) would become part of the request line,
// and no protocol has a name beyond ASCII.
func check(r *http.Request) *answer {
	switch {
	case r.Method == http.MethodConnect:
		return notImplemented
	case strings.Contains(r.RequestURI, " "), !isASCII(r.Header.Get("Upgrade")):
		return malformed
	}
	return nil
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > unicode.MaxASCII }) < 0
}

// panicked reports a panic of ours: once in the log, and as 500 if nothing was
// said yet. It never lets an answer that was begun look complete.
func (h *Handler) panicked(w http.ResponseWriter, out *responseWriter, r *http.Request, p any) {
	if p == http.ErrAbortHandler { //nolint:errorlint // what a handler panics with is compared, not unwrapped
		panic(p)
	}
	h.log.Error("panic while serving a request",
		"host", r.Host, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if out != nil && out.begun() {
		panic(http.ErrAbortHandler)
	}
	clear(w.Header())
	refuse(w, r, internalError)
}

// reverseProxy forwards one exchange. What it would log says less than what the
// exchange logs itself.
func (h *Handler) reverseProxy(x *exchange) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        x.rewrite,
		Transport:      x,
		FlushInterval:  flushInterval,
		ErrorHandler:   x.fail,
		ModifyResponse: x.prepareResponse,
		BufferPool:     &h.buffers,
		ErrorLog:       discardLog,
	}
}

var discardLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)

// bufferPool is an [httputil.BufferPool].
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[copyBuffer]byte); ok {
		return b[:]
	}
	return make([]byte, copyBuffer)
}

func (p *bufferPool) Put(b []byte) { p.pool.Put((*[copyBuffer]byte)(b)) }

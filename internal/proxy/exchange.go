package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"tenement"
	"tenement/internal/route"
	"tenement/internal/tracing"
)

const (
	// maxRetries bounds how often a request is sent again, each time to a new process.
	maxRetries = 2

	// goneWait is how long a process whose connection failed has to turn out dead.
	// Its exit is noticed within milliseconds; one that lives on is refusing.
	goneWait = time.Second

	// flushInterval is how long a piece of a response of known length may wait for
	// more. Long enough that a short response is one write, too short to be noticed.
	// Responses without a length, event streams among them, are flushed at once.
	flushInterval = time.Millisecond
)

// errTooSlow ends an exchange whose tenant did not answer within its service's
// request timeout.
var errTooSlow = &tenement.Error{Code: tenement.CodeTimeout, Op: "forward", Err: errors.New("no answer within the request timeout")}

// exchange is one request and its response. It is the transport of its own
// reverse proxy, so that a request can be sent again to another process before
// anything of a response exists.
type exchange struct {
	handler *Handler
	in      *http.Request // as the client sent it
	id      tenement.InstanceID
	writer  *responseWriter
	body    *requestBody // nil when the request has none
	lease   tenement.Lease
	cancel  context.CancelCauseFunc // breaks off what is under way with the tenant
	tunnel  tunnel
	upgrade string         // of a 426, which must name the protocol it asks for
	before  *failedAttempt // nil if nobody has tried
	trace   *tracing.Request
	sent    bool // a process that died had read of the request: perhaps it died of it

	begun  time.Time
	asker  tenement.Asker // as which it has a lease, and the wake that it has waited for
	leased time.Time      // since when
}

func newExchange(h *Handler, w http.ResponseWriter, r *http.Request, begun time.Time) *exchange {
	x := &exchange{handler: h, in: r, cancel: func(error) {}, begun: begun}
	chosen := false
	if c, ok := r.Context().Value(connKey{}).(*frontConn); ok {
		chosen = c.chosen
		if x.before = c.failed; x.before != nil {
			x.sent = x.before.sent
		}
	}
	x.trace = h.config.Tracer.Begin(r, chosen, begun)
	x.writer = newResponseWriter(w, r, h.config.ClientStall, func() { x.cancel(errNotTaken) })
	x.writer.adopt = x.adopt
	return x
}

// serve answers the request, and returns when the exchange has ended.
func (x *exchange) serve(target route.Target) {
	if hasBody(x.in) {
		x.body = newRequestBody(x.in, x.writer.control, x.handler.config.ClientStall)
	}
	x.id = target.ID
	if x.before != nil {
		x.id = x.before.id
	} else if target.Kind == route.Service {
		id, err := x.handler.config.Pick(target.ID.Service)
		if err != nil {
			x.fail(nil, nil, err)
			return
		}
		x.id = id
	}
	if x.handler.sparesWake(x.writer, x.in, x.id) {
		return
	}
	if limit := x.handler.config.MaxBody; limit != nil && exceeds(x.in.ContentLength, limit(x.id.Service)) {
		x.fail(nil, nil, errTooLarge)
		return
	}
	x.handler.reverseProxy(x).ServeHTTP(x.writer, x.in)
}

// end frees everything the exchange holds. It is called exactly once, panic or not.
func (x *exchange) end() {
	defer x.release()
	x.cancel(nil)
	x.tunnel.close()
	if x.body != nil {
		x.body.end(x.writer)
	}
	x.writer.end()
	x.tell()
}

// tell reports the request.
func (x *exchange) tell() {
	s := Served{ID: x.id, Status: x.writer.status, Begun: x.begun, BytesOut: x.writer.sent, Reached: !x.leased.IsZero(), Wake: x.asker.Wake, request: x.in}
	if x.body != nil {
		s.BytesIn = x.body.received.Load()
	}
	if c := x.tunnel.client; c != nil {
		s.Status = http.StatusSwitchingProtocols
		s.BytesIn += c.read.Load()
		s.BytesOut += c.written.Load()
	}
	x.trace.End(s.ID, s.Status)
	x.handler.tell(s)
}

func (x *exchange) acquire(ctx context.Context) error {
	x.asker = x.handler.askerOf(x.in)
	lease, err := x.handler.config.Acquire(tenement.WithAsker(ctx, &x.asker), x.id)
	if err != nil {
		return err
	}
	x.lease, x.leased = lease, time.Now()
	x.trace.Waited(x.asker.Wake)
	limit := lease.Service().MaxBody
	if exceeds(x.in.ContentLength, limit) {
		return errTooLarge
	}
	if x.body != nil {
		x.body.limit = int64(limit)
	}
	return nil
}

func (x *exchange) release() {
	if lease := x.lease; lease != nil {
		x.lease = nil
		lease.Release()
	}
}

// RoundTrip wakes the instance, sends the request, and sends it again where RFC
// 9110 §9.2.2 allows it and the process it was sent to has died.
func (x *exchange) RoundTrip(out *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(out.Context())
	x.cancel = cancel
	retries := 0
	if x.before != nil {
		if retries++; !awaitGone(ctx, x.before.gone) {
			return nil, x.before.err
		}
	}
	for ; ; retries++ {
		if err := x.acquire(ctx); err != nil {
			return nil, err
		}
		res, again, err := x.attempt(ctx, out)
		if err == nil {
			x.answered(out, res)
			return res, nil
		}
		if !again || retries == maxRetries || !awaitGone(ctx, x.lease.Gone()) {
			return nil, err
		}
		x.release()
	}
}

// attempt sends the request once. Without a response, it says whether the request
// may be sent again.
func (x *exchange) attempt(ctx context.Context, out *http.Request) (res *http.Response, again bool, err error) {
	patience := &watch{limit: x.lease.Service().Timeouts.Request, expired: func() { x.cancel(errTooSlow) }}
	req := out.WithContext(ctx)
	// The transport would otherwise send the body after a refusal, in order to keep
	// the connection, and thereby tell a client to send what nobody wants.
	req.Close = out.Header.Get("Expect") != ""
	body := x.body.attempt(out, patience)
	if body != nil {
		req.Body = body
	}

	x.trace.Sends(req.Header) //nolint:contextcheck // it has its own, from where the trace began
	patience.start()
	res, err = x.lease.Transport().RoundTrip(req)
	if late := patience.end(); late && err == nil {
		res.Body.Close()
		err = errTooSlow
	}
	if err == nil {
		x.trace.Answered(res.StatusCode)
		return res, false, nil
	}
	x.trace.Broke(err)
	unread := body.seal()
	if fault := x.body.fault(); fault != nil {
		return nil, false, fault
	}
	if ctx.Err() != nil {
		return nil, false, context.Cause(ctx)
	}
	failure := &sendError{sent: true, answered: true} // what is not known is not tried again
	errors.As(err, &failure)
	again = unread && !failure.answered && (!failure.sent || idempotent(out.Method) && !x.sent)
	x.sent = x.sent || failure.sent
	return nil, again, brokenBy(err)
}

func brokenBy(err error) error {
	return &tenement.Error{Code: tenement.CodeBroken, Op: "forward", Err: err}
}

// idempotent is RFC 9110 §9.2.2. Methods we do not know are not.
func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// awaitGone reports whether a process has died, waiting a little for it.
func awaitGone(ctx context.Context, gone <-chan struct{}) bool {
	timer := time.NewTimer(goneWait)
	defer timer.Stop()
	select {
	case <-gone:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// answered takes note of a response before the reverse proxy sees it.
func (x *exchange) answered(out *http.Request, res *http.Response) {
	if x.body != nil {
		x.body.answered()
	}
	x.tellFirstByte(res.Header)
	switch res.StatusCode {
	case http.StatusSwitchingProtocols:
		x.tunnel.backend = res.Body
		acceptUpgrade(out.Header, res.Header)
		return
	case http.StatusUpgradeRequired:
		x.upgrade = res.Header.Get("Upgrade")
	}
	res.Body = &responseBody{ReadCloser: res.Body, exchange: x}
}

// tellFirstByte reports how a wake went on, and tells the client of it if the service says so.
func (x *exchange) tellFirstByte(h http.Header) {
	w := x.asker.Wake
	if w == nil {
		return
	}
	took := time.Since(x.leased)
	if told := x.handler.config.FirstByte; told != nil {
		told(w, took)
	}
	if x.lease.Service().ServerTiming {
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		h.Add("Server-Timing", fmt.Sprintf("queue;dur=%.3f, spawn;dur=%.3f, ready;dur=%.3f, first-byte;dur=%.3f",
			ms(w.Queue), ms(w.Spawn), ms(w.Ready), ms(took)))
	}
}

// prepareResponse corrects what the reverse proxy and the server would add or
// leave out.
func (x *exchange) prepareResponse(res *http.Response) error {
	if _, ok := res.Header["Content-Type"]; !ok {
		x.writer.Header()["Content-Type"] = nil // the server must not guess one
	}
	if x.upgrade != "" && x.in.ProtoMajor == 1 {
		res.Header.Set("Upgrade", x.upgrade) // RFC 9110 §15.5.22
		res.Header.Set("Connection", "Upgrade")
	}
	return nil
}

// fail answers a request that has no response from the tenant.
func (x *exchange) fail(_ http.ResponseWriter, _ *http.Request, err error) {
	if x.tunnel.backend != nil { // the tenant switched to what nobody asked for
		err = &tenement.Error{Code: tenement.CodeBroken, Op: "upgrade", Err: err}
	}
	reply := answerTo(err)
	blamed := errors.Is(err, errStalled) || errors.Is(err, errTooLarge)
	if x.in.Context().Err() != nil && !blamed {
		panic(http.ErrAbortHandler) // the client is gone
	}
	x.handler.report(x.in.Context(), x.id, reply, err)
	x.trace.Refused(reply.code)
	if x.writer.begun() {
		panic(http.ErrAbortHandler)
	}
	reply.write(x.writer, x.in, retryAfter(err))
}

// report logs what an operator wants to know. Why an instance cannot be started
// is the supervisor's to report, and what clients do wrong is nobody's business.
func (h *Handler) report(ctx context.Context, id tenement.InstanceID, reply *answer, err error) {
	level := slog.LevelDebug
	switch reply.code {
	case tenement.CodeInternal:
		level = slog.LevelError
	case tenement.CodeBroken, tenement.CodeTimeout:
		level = slog.LevelWarn
	}
	h.log.Log(ctx, level, "request failed",
		"instance", id.String(), "code", string(reply.code), "status", reply.status, "error", fmt.Sprint(err))
}

// responseBody reports, once, a tenant that breaks off in the middle.
type responseBody struct {
	io.ReadCloser
	exchange *exchange
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && b.exchange.in.Context().Err() == nil {
		b.exchange.trace.Broke(err)
		b.exchange.handler.report(b.exchange.in.Context(), b.exchange.id, broken, err)
	}
	return n, err
}

package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"sync"
	"syscall"
	"time"
)

// lateBody is how long a connection whose response is complete waits for the rest of the
// request to be sent before it is given up: what remains is mostly to notice that it was.
const lateBody = 50 * time.Millisecond

var (
	errHeaderTooLong = errors.New("the header of the response is longer than 1 MiB")
	errNotWanted     = errors.New("the request's body is not wanted")
)

// upstreamConn is one connection to a process. One exchange at a time has it.
type upstreamConn struct {
	pool *upstream
	conn net.Conn
	raw  syscall.RawConn // nil where there is none
	r    *bufio.Reader
	w    *bufio.Writer

	idleSince time.Time
	kept      bool  // it has served a request before
	heard     bool  // something came since the request began
	budget    int64 // bytes that may still come; read by the exchange alone

	direct *directAnswer // what it serves or served last, with deadlines for reading; or nil

	writeFailed bool // by whoever sends

	peek   func(fd uintptr) // looks ahead; made once, so that it allocates nothing
	ahead  [1]byte          // what it sees
	silent bool             // what it found: open, and nothing to read
}

func (c *upstreamConn) close() { _ = c.conn.Close() }

func (c *upstreamConn) isOld() bool { return time.Since(c.idleSince) >= idleConnTimeout }

// isGood reports whether a kept connection is worth a try: not one that the process has
// closed meanwhile, or said something on that nobody asked for.
func (c *upstreamConn) isGood() bool {
	if c.isOld() || c.r.Buffered() > 0 {
		return false
	}
	if c.raw == nil {
		return true
	}
	c.silent = false
	return c.raw.Control(c.peek) == nil && c.silent
}

// upstreamReader is the connection's end that its buffer is filled from.
type upstreamReader upstreamConn

func (r *upstreamReader) Read(p []byte) (int, error) {
	if r.budget <= 0 {
		return 0, errHeaderTooLong
	}
	if r.raw != nil && r.heard {
		_ = r.raw.Control(quickAck) // only for speed
	}
	n, err := r.conn.Read(p)
	if err != nil && r.direct != nil && errors.Is(err, os.ErrDeadlineExceeded) && r.direct.beginWatch() {
		n, err = r.conn.Read(p)
	}
	r.budget -= int64(n)
	r.heard = r.heard || n > 0
	return n, err
}

// upstreamWriter is the end that the other buffer is emptied to.
type upstreamWriter upstreamConn

func (w *upstreamWriter) Write(p []byte) (int, error) {
	n, err := w.conn.Write(p)
	w.writeFailed = w.writeFailed || err != nil
	return n, err
}

// roundTrip sends req and reads the response up to its body, which gives the connection
// back when it was read to its end. After an error the connection is closed.
func (c *upstreamConn) roundTrip(req *http.Request) (*http.Response, *sendError) {
	ctx := req.Context()
	c.heard, c.budget = false, maxResponseHeader
	if c.direct != nil {
		c.direct = nil
		_ = c.conn.SetReadDeadline(time.Time{}) // fails when it is closed, which shows at once
	}
	e := &upstreamExchange{c: c, ctx: ctx, stop: context.AfterFunc(ctx, c.close)}
	res, err := e.run(req)
	if err == nil {
		return res, nil
	}
	e.end(false)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, &sendError{err: err, sent: true, answered: c.heard}
}

// upstreamExchange is one request and its response on a connection. It is the body of
// the response.
type upstreamExchange struct {
	c    *upstreamConn
	ctx  context.Context // of the request
	stop func() bool     // of what closes the connection when ctx ends
	body io.ReadCloser   // as it was read from the connection
	sent *upstreamBody   // nil without a body in the request
	keep bool            // for another request, should all end well

	ended sync.Once
}

func (e *upstreamExchange) run(req *http.Request) (*http.Response, error) {
	if req.Body == nil {
		if err := e.c.send(req); err != nil {
			return nil, err
		}
	} else {
		e.sent = &upstreamBody{
			ReadCloser: req.Body, c: e.c, expects: req.Header.Get("Expect") != "",
			wanted: make(chan bool, 1), done: make(chan error, 1),
		}
		out := *req
		out.Body = e.sent
		go e.sent.send(&out)
	}
	res, err := e.readResponse(req)
	if err != nil {
		return nil, errors.Join(e.sent.failure(), err)
	}
	e.receive(req, res)
	return res, nil
}

// send writes a whole request.
func (c *upstreamConn) send(req *http.Request) error {
	if err := req.Write(c.w); err != nil {
		return err
	}
	return c.w.Flush()
}

// readResponse reads the first header that is final; interim ones go to the trace.
func (e *upstreamExchange) readResponse(req *http.Request) (*http.Response, error) {
	for {
		res, err := http.ReadResponse(e.c.r, req)
		if err != nil {
			return nil, err
		}
		if res.StatusCode < 100 {
			return nil, fmt.Errorf("the status of the response is %s", res.Status) // no server of ours would write it
		}
		if res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
			e.sent.decide(false)
			return res, nil
		}
		if res.StatusCode == http.StatusContinue {
			e.sent.decide(true)
		}
		trace := httptrace.ContextClientTrace(e.ctx)
		if trace == nil || trace.Got1xxResponse == nil {
			continue
		}
		if err := trace.Got1xxResponse(res.StatusCode, textproto.MIMEHeader(res.Header)); err != nil {
			return nil, err
		}
	}
}

// receive makes the body of res give the connection back.
func (e *upstreamExchange) receive(req *http.Request, res *http.Response) {
	const unbounded = 1<<63 - 1
	e.c.budget = unbounded
	if res.StatusCode == http.StatusSwitchingProtocols {
		res.Body = &upgraded{e}
		return
	}
	e.keep = !req.Close && !res.Close
	if res.Body == http.NoBody {
		e.end(true)
		return
	}
	e.body, res.Body = res.Body, e
}

// Read reads of the response's body.
func (e *upstreamExchange) Read(p []byte) (int, error) {
	n, err := e.body.Read(p)
	if err == nil {
		return n, nil
	}
	complete := errors.Is(err, io.EOF)
	e.end(complete)
	if !complete && e.ctx.Err() != nil {
		err = context.Cause(e.ctx)
	}
	return n, err
}

// Close gives up what was not read of the body, and the connection with it: the rest may
// never end.
func (e *upstreamExchange) Close() error {
	e.end(false)
	return nil
}

// end keeps the connection if all of the exchange is over, or closes it.
func (e *upstreamExchange) end(complete bool) {
	e.ended.Do(func() {
		if e.stop() && complete && e.keep && e.sent.complete() && e.c.r.Buffered() == 0 {
			e.c.pool.release(e.c)
		} else {
			e.c.close()
		}
	})
}

// upgraded is a connection that does not speak HTTP any more.
type upgraded struct{ *upstreamExchange }

func (u *upgraded) Read(p []byte) (int, error)  { return u.c.r.Read(p) }
func (u *upgraded) Write(p []byte) (int, error) { return u.c.conn.Write(p) }

// CloseWrite ends one direction.
func (u *upgraded) CloseWrite() error {
	if half, ok := u.c.conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// upstreamBody is a request's body while a goroutine sends it, so that the response may
// come before its end (RFC 9110 §15.2, §15.5). A nil one is complete.
type upstreamBody struct {
	io.ReadCloser
	c       *upstreamConn
	expects bool       // 100, before anything of it is sent
	wanted  chan bool  // what the process says to that
	done    chan error // the end of sending; nil: all was sent

	over   bool  // done was received,
	result error // namely this
}

// send sends the whole request. If that fails, what the process has answered may still
// be read, unless it is the client that failed: then the rest will never come.
func (b *upstreamBody) send(req *http.Request) {
	err := b.c.send(req)
	if err != nil && !b.c.writeFailed && !errors.Is(err, errNotWanted) {
		b.c.close()
	}
	b.done <- err
}

// Read reads of the body, when the process has asked for it.
func (b *upstreamBody) Read(p []byte) (int, error) {
	if b.expects {
		b.expects = false
		if err := b.c.w.Flush(); err != nil {
			return 0, err
		}
		if !b.awaitDecision() {
			return 0, errNotWanted
		}
	}
	return b.ReadCloser.Read(p)
}

func (b *upstreamBody) awaitDecision() bool {
	timer := time.NewTimer(expectContinueTimeout)
	defer timer.Stop()
	select {
	case wanted := <-b.wanted:
		return wanted
	case <-timer.C:
		return true
	}
}

// decide says whether the process wants the body. Only the first word counts.
func (b *upstreamBody) decide(wanted bool) {
	if b == nil {
		return
	}
	select {
	case b.wanted <- wanted:
	default:
	}
}

// isOver takes note of the end of sending, if that has come.
func (b *upstreamBody) isOver() bool {
	select {
	case b.result = <-b.done:
		b.over = true
	default:
	}
	return b.over
}

// failure is why the body was not sent, as far as is known.
func (b *upstreamBody) failure() error {
	if b == nil || !b.isOver() {
		return nil
	}
	return b.result
}

// complete reports whether all was sent.
func (b *upstreamBody) complete() bool {
	if b == nil {
		return true
	}
	if !b.isOver() {
		timer := time.NewTimer(lateBody)
		defer timer.Stop()
		select {
		case b.result = <-b.done:
			b.over = true
		case <-timer.C:
		}
	}
	return b.over && b.result == nil
}

package proxy

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tenement"
)

const (
	// maxIdleConns bounds the connections kept to one process. More may be open at once.
	maxIdleConns = 32

	// idleConnTimeout is below what tenants close after (gunicorn 2 s; Node and
	// uvicorn 5 s): a request that is sent just when the tenant closes is lost, and
	// one with a body cannot be sent again. A new connection costs 0.1 ms.
	idleConnTimeout = 1500 * time.Millisecond

	// expectContinueTimeout is what curl waits, too, before it sends the body unasked.
	expectContinueTimeout = time.Second

	// maxResponseHeader bounds what a tenant can make us keep of one header, interim
	// responses included, in bytes.
	maxResponseHeader = 1 << 20

	// upstreamBuffer is the size of a connection's two buffers.
	upstreamBuffer = 4 << 10
)

// upstreamHost stands in URLs for the process a transport belongs to. It reaches
// no resolver, and a tenant sees it only if its client sent no Host at all.
const upstreamHost = "tenant.invalid"

// upstream is the transport of one process: HTTP/1.1 over connections from dial, whatever
// host a request names, with nothing added to what is sent. Unlike [http.Transport] it
// has no goroutines of its own: whoever asks writes and reads. That halves what a request
// costs, and an idle connection is two buffers and a descriptor.
//
// An error of RoundTrip is a *sendError, or the end of the request's context.
type upstream struct {
	dial func(ctx context.Context) (net.Conn, error)

	mu    sync.Mutex
	idle  []*upstreamConn // the longest unused first
	sweep *time.Timer     // runs while there are any
}

// NewTransport makes the transport of one process over connections from dial. It speaks
// HTTP/1.1, whatever host a request names, and adds nothing to what it sends.
func NewTransport(dial func(ctx context.Context) (net.Conn, error)) tenement.Transport {
	return &upstream{dial: dial}
}

// sendError is why a request has no response.
type sendError struct {
	err      error
	sent     bool // a process may have read of the request
	answered bool // and said something, though not a response
}

func (e *sendError) Error() string { return e.err.Error() }
func (e *sendError) Unwrap() error { return e.err }

// RoundTrip implements [http.RoundTripper]. A request without a body that met a kept
// connection which the process closed is sent again on a new one, where RFC 9110 §9.2.2
// allows it.
func (u *upstream) RoundTrip(req *http.Request) (*http.Response, error) {
	c, err := u.take(req.Context())
	if err != nil {
		return nil, unsent(req, err)
	}
	res, failure := c.roundTrip(req)
	if failure == nil {
		return res, nil
	}
	if !c.kept || failure.answered || req.Body != nil || !idempotent(req.Method) || req.Context().Err() != nil {
		return nil, failure
	}
	if c, err = u.open(req.Context()); err != nil {
		return nil, &sendError{err: err, sent: true}
	}
	if res, failure = c.roundTrip(req); failure != nil {
		return nil, failure
	}
	return res, nil
}

func unsent(req *http.Request, err error) error {
	if req.Body != nil {
		_ = req.Body.Close()
	}
	return &sendError{err: err}
}

// take gives a kept connection or a new one.
func (u *upstream) take(ctx context.Context) (*upstreamConn, error) {
	if c := u.takeKept(); c != nil {
		return c, nil
	}
	return u.open(ctx)
}

// takeKept gives the connection used last that is still good, or nil.
func (u *upstream) takeKept() *upstreamConn {
	for c := u.pop(); c != nil; c = u.pop() {
		if c.isGood() {
			return c
		}
		c.close()
	}
	return nil
}

func (u *upstream) pop() *upstreamConn {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := len(u.idle)
	if n == 0 {
		return nil
	}
	c := u.idle[n-1]
	u.idle[n-1] = nil
	u.idle = u.idle[:n-1]
	return c
}

func (u *upstream) open(ctx context.Context) (*upstreamConn, error) {
	conn, err := u.dial(ctx)
	if err != nil {
		return nil, err
	}
	return u.connection(conn), nil
}

func (u *upstream) connection(conn net.Conn) *upstreamConn {
	c := &upstreamConn{pool: u, conn: conn}
	if s, ok := conn.(syscall.Conn); ok {
		c.raw, _ = s.SyscallConn() // without it there is no looking ahead, which is only for speed
	}
	c.peek = func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), c.ahead[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		c.silent = errors.Is(err, unix.EAGAIN)
	}
	c.r = bufio.NewReaderSize((*upstreamReader)(c), upstreamBuffer)
	c.w = bufio.NewWriterSize((*upstreamWriter)(c), upstreamBuffer)
	return c
}

// Offer implements [tenement.Transport].
func (u *upstream) Offer(conn net.Conn) { u.put(u.connection(conn)) }

// release keeps c, which has served a request, for the next one.
func (u *upstream) release(c *upstreamConn) {
	c.kept = true
	u.put(c)
}

func (u *upstream) put(c *upstreamConn) {
	c.idleSince = time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.idle) == maxIdleConns {
		c.close()
		return
	}
	u.idle = append(u.idle, c)
	if len(u.idle) > 1 {
		return // the timer runs
	}
	if u.sweep == nil {
		u.sweep = time.AfterFunc(idleConnTimeout, u.closeOld)
	} else {
		u.sweep.Reset(idleConnTimeout)
	}
}

// closeOld closes what has been idle for too long.
func (u *upstream) closeOld() {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := 0
	for ; n < len(u.idle) && u.idle[n].isOld(); n++ {
		u.idle[n].close()
	}
	u.idle = append(u.idle[:0:0], u.idle[n:]...)
	if len(u.idle) > 0 {
		u.sweep.Reset(idleConnTimeout - time.Since(u.idle[0].idleSince))
	}
}

// CloseIdleConnections closes what nobody uses at the moment.
func (u *upstream) CloseIdleConnections() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.idle {
		c.close()
	}
	u.idle = nil
	if u.sweep != nil {
		u.sweep.Stop()
	}
}

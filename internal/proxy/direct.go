package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"tenement"
	"tenement/internal/route"
)

const (
	// quickPatience is how long a tenant may be silent until its client is watched: most
	// have answered by then, and watching takes a goroutine.
	quickPatience = 20 * time.Millisecond

	// directDial bounds a connection to a process that is ready, most of which take 0.1 ms.
	directDial = 5 * time.Second
)

// errLeft ends an exchange whose client has gone.
var errLeft = errors.New("the client has gone")

// directAnswer is one request on its way to a process that was ready, and its response.
// It has no goroutine, no timer and no [http.Request]; what it does not know is passed
// on to net/http. It lives in its connection and serves one request after the other.
type directAnswer struct {
	c     *frontConn
	id    tenement.InstanceID
	lease tenement.Lease
	up    *upstreamConn
	begun time.Time
	watch *clientWatch // nil: the client is not watched
	res   responseHead

	left     bool  // the client, as was seen
	answered bool  // the header of the response is there
	refused  int   // the status of an answer of our own
	sent     int64 // bytes of the body
	close    bool  // the connection, behind the response
}

// failedAttempt is why a request was not answered directly: the process that was to
// answer it said nothing. It is for another process, if that one has ended.
type failedAttempt struct {
	id   tenement.InstanceID
	err  error
	sent bool // it may have read of the request
	gone <-chan struct{}
}

// direct answers the request at hand. If it reports false, nothing has happened that
// net/http may not let happen again. An error ends the connection.
func (c *frontConn) direct() (answered bool, err error) {
	config := &c.server.handler.config
	if config.Ready == nil || config.Leaving != nil && config.Leaving() {
		return false, nil
	}
	if !bytes.Equal(c.head.host, []byte(c.host)) {
		c.host, c.origin = string(c.head.host), nil
	}
	path, ok := c.head.path()
	if !ok {
		return false, nil
	}
	target := config.Lookup(c.host, path)
	switch target.Kind {
	case route.Instance:
	case route.Service:
		if target.ID, err = config.Pick(target.ID.Service); err != nil {
			return false, nil //nolint:nilerr // net/http says it
		}
	default:
		return false, nil
	}
	lease, ok := config.Ready(c.ctx, target.ID)
	if !ok {
		return false, nil
	}
	begun := time.Now()
	defer lease.Release()
	pool, ok := lease.Transport().(*upstream)
	if !ok || !c.goesUnrecorded() {
		return false, nil
	}
	c.answer = directAnswer{c: c, id: target.ID, lease: lease}
	answered, err = c.answer.run(pool)
	if answered || err != nil { // else net/http is at it
		c.server.handler.tell(Served{ID: target.ID, Status: c.answer.status(), Begun: begun, BytesOut: c.answer.sent, Reached: true, conn: c})
	}
	return answered, err
}

// status is that of the answer; 0: there was none.
func (a *directAnswer) status() int {
	if a.answered {
		return a.res.status
	}
	return a.refused
}

// run sends the request and forwards the response.
func (a *directAnswer) run(pool *upstream) (answered bool, err error) {
	defer a.end()
	a.up = pool.takeKept()
	if a.up != nil {
		err = a.ask()
	}
	if a.up == nil || err != nil && !a.up.heard && !errors.Is(err, os.ErrDeadlineExceeded) && !a.endWatch() {
		if err = a.connect(pool); err == nil {
			err = a.ask()
		}
	}
	switch {
	case err == nil:
		return true, a.forward()
	case a.endWatch():
		return false, errLeft
	case errors.Is(err, os.ErrDeadlineExceeded):
		return true, a.refuse(errTooSlow)
	case a.up != nil && a.up.heard:
		return true, a.refuse(brokenBy(err))
	}
	a.c.failed = &failedAttempt{id: a.id, err: brokenBy(err), sent: a.up != nil, gone: a.lease.Gone()}
	return false, nil
}

// connect makes a connection to the process, instead of one that it closed meanwhile.
func (a *directAnswer) connect(pool *upstream) error {
	a.end()
	ctx, cancel := context.WithTimeout(a.c.ctx, directDial)
	defer cancel()
	up, err := pool.open(ctx)
	if err == nil {
		a.up = up
	}
	return err
}

// ask sends the request and reads the header of the response.
func (a *directAnswer) ask() error {
	a.up.heard, a.up.budget, a.up.direct = false, maxResponseHeader, a
	a.begun = time.Now()
	if err := a.up.conn.SetReadDeadline(a.begun.Add(quickPatience)); err != nil {
		return err
	}
	if err := a.send(); err != nil {
		return err
	}
	return a.readHead()
}

// send writes the request.
func (a *directAnswer) send() error {
	c := a.c
	out := append(c.out[:0], c.head.method...)
	out = append(append(append(out, ' '), c.head.target...), " HTTP/1.1\r\nHost: "...)
	out = append(append(out, c.head.host...), "\r\n"...)
	for _, f := range c.head.fields {
		out = f.append(out)
	}
	out = append(append(c.appendOrigin(out), c.parent...), "\r\n"...)
	c.out = out
	_, err := a.up.conn.Write(out)
	return err
}

func (f field) append(b []byte) []byte {
	return append(append(append(append(b, f.name...), ": "...), f.value...), "\r\n"...)
}

// appendOrigin appends the fields that say where the request comes from.
func (c *frontConn) appendOrigin(b []byte) []byte {
	trusted := len(c.head.forwarding) > 0 && c.server.handler.trustsAddr(c.client)
	if c.origin != nil && !trusted {
		return append(b, c.origin...)
	}
	hop := element{host: c.host, proto: "http"}
	if c.client.IsValid() {
		hop.client = c.client.String()
	}
	header := make(http.Header, 4)
	hop.set(header)
	if trusted {
		in := make(http.Header, len(c.head.forwarding))
		for _, f := range c.head.forwarding {
			if bytes.IndexByte(f.name, '_') < 0 {
				in.Add(string(f.name), string(f.value))
			}
		}
		for name, values := range in {
			if _, ours := header[name]; !ours {
				header[name] = values
			}
		}
		keepForwarding(header, in, hop)
	}
	from := len(b)
	for name, values := range header {
		for _, value := range values {
			b = field{[]byte(name), []byte(value)}.append(b)
		}
	}
	if !trusted {
		c.origin = bytes.Clone(b[from:])
	}
	return b
}

// readHead reads the header of the response; interim ones are forwarded.
func (a *directAnswer) readHead() error {
	for {
		head, err := a.awaitHead()
		if err != nil {
			return err
		}
		if err := a.res.parse(head, a.c.fields); err != nil {
			return err
		}
		a.c.fields = a.res.fields
		if a.res.status >= 200 {
			return nil
		}
		if a.res.status != http.StatusContinue { // which nobody waits for
			if err := a.c.writeOut(append(a.appendFields(a.appendStatus(a.c.out[:0])), "\r\n"...)); err != nil {
				return err
			}
		}
	}
}

// awaitHead reads up to the empty line, and returns that, too. The bytes are good until
// more is read.
func (a *directAnswer) awaitHead() ([]byte, error) {
	r := a.up.r
	for seen := 0; ; {
		if _, err := r.Peek(seen + 1); err != nil {
			return nil, err
		}
		window, _ := r.Peek(r.Buffered()) // never more than there is
		if end := headEnd(window, max(0, seen-2)); end >= 0 {
			_, _ = r.Discard(end)
			return window[:end], nil
		}
		if seen = len(window); seen == upstreamBuffer {
			return a.awaitLongHead()
		}
	}
}

// awaitLongHead is for a header that the connection's buffer cannot hold.
func (a *directAnswer) awaitLongHead() ([]byte, error) {
	var head []byte
	for {
		piece, err := a.up.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		head = append(head, piece...)
		if headEnd(head, max(0, len(head)-len(piece)-2)) >= 0 {
			return head, nil
		}
	}
}

// headEnd finds the end of the empty line behind a header, -1 if it is not there. The
// first bytes of b are known not to have it.
func headEnd(b []byte, from int) int {
	for {
		at := bytes.IndexByte(b[from:], '\n')
		if at < 0 {
			return -1
		}
		from += at + 1
		if from < len(b) && b[from] == '\n' {
			return from + 1
		}
		if from+1 < len(b) && b[from] == '\r' && b[from+1] == '\n' {
			return from + 2
		}
	}
}

// beginWatch is called when the process has been silent for a while: the client is watched
// from now on, and the process has until the service's request timeout to begin. It
// reports false if that was done before, so that the time is up.
func (a *directAnswer) beginWatch() bool {
	if a.watch != nil {
		return false
	}
	a.watch = watchClient(a.c, a.up)
	var until time.Time
	if limit := a.lease.Service().Timeouts.Request; limit > 0 && !a.answered {
		until = a.begun.Add(limit)
	}
	return a.up.conn.SetReadDeadline(until) == nil
}

// endWatch reports whether the client was seen to leave.
func (a *directAnswer) endWatch() bool {
	if a.watch != nil {
		a.left = a.watch.end()
		a.watch = nil
	}
	return a.left
}

// end closes the connection to the process, unless that was given back.
func (a *directAnswer) end() {
	a.endWatch()
	if a.up != nil {
		a.up.close()
		a.up = nil
	}
}

// clientWatch notices, while a process is silent, that the client has gone, and breaks the
// connection to the process off. What the client sends meanwhile is its next request.
type clientWatch struct {
	c    *frontConn
	left atomic.Bool
	done chan struct{}
}

func watchClient(c *frontConn, up *upstreamConn) *clientWatch {
	w := &clientWatch{c: c, done: make(chan struct{})}
	_ = c.Conn.SetReadDeadline(time.Time{}) // fails when it is closed, which the reader notices
	go func() {
		defer close(w.done)
		for c.to < len(c.buf) {
			if err := c.more(); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					w.left.Store(true)
					up.close()
				}
				return
			}
		}
	}()
	return w
}

// end stops watching, and reports whether the client was seen to leave.
func (w *clientWatch) end() bool {
	_ = w.c.Conn.SetReadDeadline(aLongTimeAgo) // fails when it is closed
	<-w.done
	_ = w.c.Conn.SetReadDeadline(time.Time{})
	w.c.idleUntil = time.Time{}
	return w.left.Load()
}

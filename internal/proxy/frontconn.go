package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// frontBuffer bounds the header of a request that is answered directly, in bytes. It is
// all that an idle connection has, beside net/http's own.
const frontBuffer = 8 << 10

// What a connection is at.
const (
	connWaits   int32 = iota // for a request
	connPasses               // a request on to net/http, or is not HTTP/1 any more
	connAnswers              // a request, directly
	connLeaves               // the same, and it is to be closed behind the response
	connClosed
)

// frontConn is a client's connection. net/http reads it, at the latest when it wants the
// next request; a plain request that comes then to an instance that is ready is answered
// right there, within Read, and the next one awaited. All others are passed on, each
// exactly to its end, so that the turn comes back with the request after it.
//
// One goroutine at a time reads; Close may be called by any.
type frontConn struct {
	net.Conn
	server *Server
	ctx    context.Context // of the connection
	state  atomic.Int32
	served atomic.Bool // a request, directly

	// The bytes buf[from:to] have come and belong to nobody yet.
	buf      []byte
	from, to int

	between bool  // the next byte begins a request
	over    bool  // nothing more is read: net/http would try again after an error
	owed    int64 // bytes of the request that net/http has and has not read
	foreign bool  // where requests end is net/http's alone to know, from now on

	idleUntil  time.Time // the deadline for reading, as far as it was set here; zero: unknown
	writeUntil time.Time // the one for writing

	client netip.Addr // invalid for one that has none
	head   requestHead
	answer directAnswer
	host   string  // of the last request
	origin []byte  // the forwarding fields for host
	out    []byte  // what is about to be written
	fields []field // of the response

	failed *failedAttempt // to answer the request that net/http has now; or nil
	chosen bool           // a trace that is recorded begins with that
	parent []byte         // the field that is added to a request, so that nobody records it
}

func newFrontConn(s *Server, conn net.Conn) *frontConn {
	c := &frontConn{Conn: conn, server: s, buf: make([]byte, frontBuffer), between: true}
	c.client, _ = address(conn.RemoteAddr().String())
	return c
}

// takeBack is called when net/http awaits the next request.
func (c *frontConn) takeBack() {
	if c.foreign {
		return
	}
	c.failed, c.chosen = nil, false
	c.foreign = c.owed != 0
	c.between = !c.foreign
	c.state.CompareAndSwap(connPasses, connWaits)
	c.idleUntil, c.writeUntil = time.Now().Add(idleTimeout), time.Time{}
}

// Read gives net/http what is its own.
func (c *frontConn) Read(p []byte) (int, error) {
	if c.between {
		if c.over = c.over || c.answerPlain() != nil; c.over {
			return 0, io.EOF // upon which net/http closes the connection without a word
		}
	}
	switch {
	case c.foreign && c.from == c.to:
		return c.Conn.Read(p)
	case c.foreign:
		return c.take(p), nil
	case c.owed == 0:
		return c.watchClient(p)
	}
	p = p[:min(int64(len(p)), c.owed)]
	if c.from == c.to {
		n, err := c.Conn.Read(p)
		c.owed -= int64(n)
		return n, err
	}
	n := c.take(p)
	c.owed -= int64(n)
	return n, nil
}

// take moves bytes that have come to p.
func (c *frontConn) take(p []byte) int {
	n := copy(p, c.buf[c.from:c.to])
	c.from += n
	return n
}

// watchClient is a read by which net/http learns, while it serves a request, that the
// client has gone. What comes instead belongs to the next request, and is kept for it.
func (c *frontConn) watchClient(p []byte) (int, error) {
	for c.compact() {
		if err := c.more(); err != nil {
			return 0, err
		}
	}
	c.foreign = true
	return c.take(p), nil
}

// compact makes room in the buffer, and reports whether there is any.
func (c *frontConn) compact() bool {
	if c.from > 0 {
		c.to = copy(c.buf, c.buf[c.from:c.to])
		c.from = 0
	}
	return c.to < len(c.buf)
}

// more reads what comes next.
func (c *frontConn) more() error {
	n, err := c.Conn.Read(c.buf[c.to:])
	c.to += n
	if n > 0 {
		return nil
	}
	return err
}

// answerPlain answers requests until one comes that is net/http's. An error ends the
// connection.
func (c *frontConn) answerPlain() error {
	for {
		kind, err := c.nextHead()
		if err != nil {
			return err
		}
		if kind == headPlain {
			answered, err := c.answerOne()
			if err != nil {
				return err
			}
			if answered {
				continue
			}
		}
		return c.passOn(kind == headForeign)
	}
}

// passOn leaves the request at hand to net/http.
func (c *frontConn) passOn(foreign bool) error {
	if !c.state.CompareAndSwap(connWaits, connPasses) {
		return net.ErrClosed
	}
	c.between, c.foreign = false, foreign
	if !foreign {
		c.owed = int64(c.head.length) + c.head.body
	}
	if c.writeUntil.IsZero() {
		return nil
	}
	return c.SetWriteDeadline(time.Time{})
}

// answerOne answers the request at hand, unless it reports false: then nothing was done
// that net/http may not do again.
func (c *frontConn) answerOne() (answered bool, err error) {
	if !c.state.CompareAndSwap(connWaits, connAnswers) {
		return false, net.ErrClosed
	}
	defer func() {
		if !c.state.CompareAndSwap(connAnswers, connWaits) {
			err = errors.Join(err, net.ErrClosed, c.closeNow())
		}
	}()
	answered, err = c.direct()
	if answered && err == nil {
		c.from += c.head.length
		c.served.Store(true)
	}
	return answered, err
}

// nextHead waits for the next request's header.
func (c *frontConn) nextHead() (headKind, error) {
	late := false
	for {
		kind := c.head.parse(c.buf[c.from:c.to])
		if kind != headIncomplete {
			if late {
				c.idleUntil = time.Time{}
			}
			return kind, nil
		}
		if !c.compact() {
			return headForeign, nil
		}
		var err error
		switch begun := c.to > 0; {
		case begun && !late:
			late = true
			err = c.Conn.SetReadDeadline(time.Now().Add(readHeaderTimeout))
		case !begun:
			err = c.awaitRequest()
		}
		if err == nil {
			err = c.more()
		}
		if err != nil {
			return 0, err
		}
	}
}

// deadlineSlack is by how much an idle connection may be closed too early.
const deadlineSlack = time.Second

// awaitRequest bounds the wait for the first byte of a request. The deadline of a
// connection that is in use is not set anew each time: that costs a microsecond.
func (c *frontConn) awaitRequest() error {
	if !c.served.Load() {
		return nil // net/http has set it
	}
	until := time.Now().Add(idleTimeout)
	if until.Sub(c.idleUntil) < deadlineSlack {
		return nil
	}
	c.idleUntil = until
	return c.Conn.SetReadDeadline(until)
}

// writeOut writes directly to the client, who has the handler's ClientStall to take it in.
func (c *frontConn) writeOut(p []byte) error {
	limit := c.server.handler.config.ClientStall
	if now := time.Now(); c.writeUntil.Sub(now) < limit {
		c.writeUntil = now.Add(limit + limit/8)
		if err := c.Conn.SetWriteDeadline(c.writeUntil); err != nil {
			return err
		}
	}
	_, err := c.Conn.Write(p)
	return err
}

// Close closes the connection, or has it closed behind the response that is under way.
func (c *frontConn) Close() error {
	if c.state.CompareAndSwap(connAnswers, connLeaves) || c.state.Load() == connLeaves {
		return nil
	}
	return c.closeNow()
}

// CloseWrite ends one direction, as net/http does before it closes on somebody who sends.
func (c *frontConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return net.ErrClosed
}

// closeIfUnused closes a connection that was used and awaits the next request. One that
// was never used has just been made, and its request is likely on its way.
func (c *frontConn) closeIfUnused() {
	if c.served.Load() && c.state.CompareAndSwap(connWaits, connClosed) {
		_ = c.closeNow() // nothing was lost
	}
}

func (c *frontConn) closeNow() error {
	c.state.Store(connClosed)
	c.server.forget(c)
	return c.Conn.Close()
}

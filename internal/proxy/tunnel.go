package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
)

// tunnel is an upgraded connection: the client's end and the tenant's.
type tunnel struct {
	client  *clientConn
	backend io.Closer
}

// close ends both sides. It is harmless when there is no tunnel.
func (t *tunnel) close() {
	if t.client != nil {
		t.client.quiet.end()
		t.client.Close()
	}
	if t.backend != nil {
		t.backend.Close()
	}
}

// adopt takes the client's connection over. Once either side has ended its half,
// the other may go on as long as it has something to say; a side that is told of
// the end and stays silent has left without closing.
func (x *exchange) adopt(conn net.Conn, early *bufio.Reader) net.Conn {
	c := &clientConn{Conn: conn, early: early}
	backend := x.tunnel.backend
	c.quiet = watch{limit: x.handler.config.ClientStall, expired: func() {
		conn.Close()
		if backend != nil {
			backend.Close()
		}
	}}
	x.tunnel.client = c
	return c
}

// clientConn is the client's end of an upgraded connection.
type clientConn struct {
	net.Conn
	early *bufio.Reader // holds what came together with the request
	half  atomic.Bool   // one direction has ended
	quiet watch         // runs from then on

	read, written atomic.Int64 // bytes
}

func (c *clientConn) Read(p []byte) (n int, err error) {
	if c.early.Buffered() > 0 {
		n, err = c.early.Read(p)
	} else {
		n, err = c.Conn.Read(p)
	}
	if errors.Is(err, io.EOF) {
		c.half.Store(true)
	}
	c.read.Add(int64(n))
	c.moved()
	return n, err
}

func (c *clientConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	c.moved()
	return n, err
}

// CloseWrite tells the client that the tenant has ended its half.
func (c *clientConn) CloseWrite() error {
	c.half.Store(true)
	c.moved()
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported // the reverse proxy then ends both directions
}

func (c *clientConn) moved() {
	if c.half.Load() {
		c.quiet.start()
	}
}

// acceptUpgrade lets the tenant choose among several protocols (RFC 9110 §7.8);
// the reverse proxy knows only exactly what was asked for.
func acceptUpgrade(asked, chosen http.Header) {
	choice := chosen.Get("Upgrade")
	for protocol := range strings.SplitSeq(asked.Get("Upgrade"), ",") {
		if strings.EqualFold(strings.TrimSpace(protocol), choice) {
			asked.Set("Upgrade", choice)
			return
		}
	}
}

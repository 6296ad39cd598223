package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// patience bounds one exchange.
const patience = 30 * time.Second

// Saturate has n clients ask over HTTP/1.1 as fast as they are answered, each over a
// connection that is kept, or over a new one for every request.
func Saturate(ctx context.Context, t Target, n int, d time.Duration, keepAlive bool) *Result {
	requests := make([][]byte, len(t.Hosts))
	for i, host := range t.Hosts {
		requests[i] = Request(host, t.Path)
	}
	return closedLoop(ctx, t, n, d, func(i int) client {
		return &plain{Conn: Conn{Address: t.Address}, requests: requests, next: i * len(requests) / n, keep: keepAlive}
	})
}

// Request is a GET as [Conn.Exchange] sends it.
func Request(host, path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
}

// plain is a client that takes its requests in turn.
type plain struct {
	Conn
	requests [][]byte
	next     int
	keep     bool
}

func (p *plain) ask(ctx context.Context) error {
	request := p.requests[p.next]
	p.next = (p.next + 1) % len(p.requests)
	err := p.Exchange(ctx, request)
	if err != nil || !p.keep {
		p.close()
	}
	return err
}

func (p *plain) close() { p.Close() }

// Conn is a connection of HTTP/1.1 on which answers have a length. It is dialed by the
// first exchange, and by the first one after Close.
type Conn struct {
	Address string

	conn   net.Conn
	buffer []byte
	have   int // bytes of the next answer in buffer
}

// Close resets the connection, so that neither side remembers it for a minute: ports
// would run out.
func (c *Conn) Close() {
	if c.conn == nil {
		return
	}
	if tcp, ok := c.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // closed in any case
	}
	c.conn.Close()
	c.conn, c.have = nil, 0
}

// Exchange sends request and reads its answer to the end. An answer of another status
// than 200, or without a length, is an error.
func (c *Conn) Exchange(ctx context.Context, request []byte) error {
	if err := c.Send(ctx, request); err != nil {
		return err
	}
	return c.Receive()
}

// Send dials where necessary and sends a request.
func (c *Conn) Send(ctx context.Context, request []byte) error {
	if c.conn == nil {
		conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", c.Address)
		if err != nil {
			return err
		}
		c.conn = conn
		if c.buffer == nil {
			c.buffer = make([]byte, 64<<10)
		}
		conn.SetDeadline(time.Now().Add(patience))
	}
	_, err := c.conn.Write(request)
	return err
}

// Receive reads one answer to the end.
func (c *Conn) Receive() error {
	_, err := c.receive()
	return err
}

// await reads the first bytes of an answer and keeps them.
func (c *Conn) await() error {
	n, err := c.conn.Read(c.buffer)
	c.have = n
	return noEOF(err)
}

// receive reads one answer to the end and gives the beginning of its body, which is
// valid until the next one.
func (c *Conn) receive() ([]byte, error) {
	head, err := c.head()
	have := c.have
	c.have = 0
	if err != nil {
		return nil, err
	}
	if status := string(head[:min(len(head), len("HTTP/1.1 200"))]); status != "HTTP/1.1 200" && status != "HTTP/1.0 200" {
		return nil, fmt.Errorf("answered %q", firstLine(head))
	}
	length, err := contentLength(head)
	if err != nil {
		return nil, err
	}
	body := c.buffer[len(head):have]
	rest := max(length-len(body), 0)
	if have+rest <= len(c.buffer) { // small: all of it
		_, err := io.ReadFull(c.conn, c.buffer[have:have+rest])
		return c.buffer[len(head) : have+rest], err
	}
	for rest > 0 {
		n, err := c.conn.Read(c.buffer[:min(rest, len(c.buffer))])
		if err != nil {
			return nil, err
		}
		rest -= n
	}
	return nil, nil
}

var errHead = errors.New("the head of the answer is too long")

// head reads until it has the head of an answer.
func (c *Conn) head() ([]byte, error) {
	for {
		if end := bytes.Index(c.buffer[:c.have], []byte("\r\n\r\n")); end >= 0 {
			return c.buffer[:end+4], nil
		}
		if c.have == len(c.buffer) {
			return nil, errHead
		}
		n, err := c.conn.Read(c.buffer[c.have:])
		c.have += n
		if n == 0 && err != nil {
			return nil, noEOF(err)
		}
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func firstLine(head []byte) []byte {
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	return line
}

var lengthField = []byte("\r\ncontent-length:")

// contentLength looks for the field in any case, without making a copy.
func contentLength(head []byte) (int, error) {
	for at := bytes.IndexByte(head, '\r'); at >= 0 && at+len(lengthField) < len(head); {
		if bytes.EqualFold(head[at:at+len(lengthField)], lengthField) {
			value, _, _ := bytes.Cut(head[at+len(lengthField):], []byte("\r"))
			return strconv.Atoi(string(bytes.TrimSpace(value)))
		}
		next := bytes.IndexByte(head[at+1:], '\r')
		if next < 0 {
			break
		}
		at += 1 + next
	}
	return 0, fmt.Errorf("an answer without a length: %q", firstLine(head))
}

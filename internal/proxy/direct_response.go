package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"strconv"
	"sync/atomic"
	"time"
)

// appendStatus appends the status line.
func (a *directAnswer) appendStatus(b []byte) []byte {
	b = strconv.AppendInt(append(b, "HTTP/1.1 "...), int64(a.res.status), 10)
	b = append(b, ' ')
	if reason := a.res.reason; isText(reason) {
		b = append(b, reason...)
	}
	return append(b, "\r\n"...)
}

// isText reports whether b has no control characters.
func isText(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// appendFields appends what is not for us alone.
func (a *directAnswer) appendFields(b []byte) []byte {
	for _, f := range a.res.fields {
		if f.is("Content-Length") || f.isHop(a.res.fields) {
			continue
		}
		b = f.append(b)
	}
	return b
}

// appendHead appends the header of the response as the client gets it.
func (a *directAnswer) appendHead(b []byte) []byte {
	c, res := a.c, &a.res
	b = a.appendFields(a.appendStatus(b))
	if !res.date {
		b = append(append(append(b, "Date: "...), httpDate()...), "\r\n"...)
	}
	switch body := res.hasBody(c.isHead()); {
	case body && (res.chunked || res.length < 0):
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case res.length >= 0 && !res.isBare():
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), res.length, 10), "\r\n"...)
	}
	upgrade := res.status == http.StatusUpgradeRequired // must name what it asks for (RFC 9110 §15.5.22)
	for _, f := range res.fields {
		if upgrade && f.is("Upgrade") || res.chunked && f.is("Trailer") {
			b = f.append(b)
		}
	}
	switch {
	case a.close && upgrade:
		b = append(b, "Connection: close, Upgrade\r\n"...)
	case a.close:
		b = append(b, "Connection: close\r\n"...)
	case upgrade:
		b = append(b, "Connection: Upgrade\r\n"...)
	}
	return append(b, "\r\n"...)
}

func (c *frontConn) isHead() bool { return string(c.head.method) == http.MethodHead }

// forward sends the response, of which the header was read.
func (a *directAnswer) forward() error {
	const unbounded = 1<<63 - 1
	a.up.budget, a.answered = unbounded, true
	if a.watch != nil { // then the deadline is for the header
		if err := a.up.conn.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
	}
	a.close = a.c.head.close || a.c.server.ending.Load()
	out := a.appendHead(a.c.out[:0])
	reusable, err := !a.res.close, error(nil)
	switch {
	case !a.res.hasBody(a.c.isHead()):
		err = a.c.writeOut(out)
	case a.res.chunked:
		err = a.copyUnknown(out)
	case a.res.length > 0:
		err = a.copyKnown(out)
	default:
		reusable = false
		err = a.copyUnknown(out)
	}
	if a.endWatch() || err != nil {
		return errors.Join(err, errLeft)
	}
	if reusable && a.up.r.Buffered() == 0 {
		a.up.pool.release(a.up)
		a.up = nil
	}
	if a.close {
		return io.EOF
	}
	return nil
}

// copyKnown sends out and a body whose length is known.
func (a *directAnswer) copyKnown(out []byte) error {
	left := a.res.length
	ready, _ := a.up.r.Peek(int(min(int64(a.up.r.Buffered()), left))) // it is there
	out = append(out, ready...)
	a.c.out = out
	if err := a.c.writeOut(out); err != nil {
		return err
	}
	n, _ := a.up.r.Discard(len(ready))
	a.sent = int64(n)
	if left -= int64(n); left == 0 {
		return nil
	}
	buf := a.c.server.handler.buffers.Get()
	defer a.c.server.handler.buffers.Put(buf)
	for left > 0 {
		n, err := a.up.r.Read(buf[:min(int64(len(buf)), left)])
		if err != nil {
			return a.broken(err)
		}
		if err := a.c.writeOut(buf[:n]); err != nil {
			return err
		}
		left -= int64(n)
		a.sent += int64(n)
	}
	return nil
}

// copyUnknown sends out and a body whose end shows only when it is there, in chunks
// (RFC 9112 §7.1). What has come is sent when there is no more at the moment.
func (a *directAnswer) copyUnknown(out []byte) error {
	var body io.Reader = a.up.r
	if a.res.chunked {
		body = httputil.NewChunkedReader(a.up.r)
	}
	buf := a.c.server.handler.buffers.Get()
	defer a.c.server.handler.buffers.Put(buf)
	for {
		if a.up.r.Buffered() == 0 || len(out) >= len(buf) {
			if err := a.c.writeOut(out); err != nil {
				return err
			}
			out = out[:0]
		}
		n, err := body.Read(buf)
		a.sent += int64(n)
		if n > 0 {
			out = append(strconv.AppendInt(out, int64(n), 16), "\r\n"...)
			out = append(append(out, buf[:n]...), "\r\n"...)
		}
		if errors.Is(err, io.EOF) {
			out, err = a.appendTrailers(append(out, "0\r\n"...))
			return errors.Join(err, a.c.writeOut(out))
		}
		if err != nil {
			return errors.Join(a.c.writeOut(out), a.broken(err))
		}
	}
}

// appendTrailers appends what follows the last chunk.
func (a *directAnswer) appendTrailers(b []byte) ([]byte, error) {
	if !a.res.chunked {
		return append(b, "\r\n"...), nil
	}
	a.up.budget = maxResponseHeader
	trailers, err := textproto.NewReader(a.up.r).ReadMIMEHeader()
	if err != nil {
		return b[:0], a.broken(err)
	}
	for name, values := range trailers {
		for _, value := range values {
			if forwardsTrailer(name) {
				b = field{[]byte(name), []byte(oneLine.Replace(value))}.append(b)
			}
		}
	}
	return append(b, "\r\n"...), nil
}

// broken reports a process that broke off in the middle of a response.
func (a *directAnswer) broken(err error) error {
	if !a.endWatch() {
		a.c.server.handler.report(a.c.ctx, a.id, broken, err)
	}
	return err
}

// refuse answers with what went wrong.
func (a *directAnswer) refuse(err error) error {
	c := a.c
	reply := answerTo(err)
	a.refused = reply.status
	c.server.handler.report(c.ctx, a.id, reply, err)
	req, parseErr := http.ReadRequest(bufio.NewReader(bytes.NewReader(c.buf[c.from : c.from+c.head.length])))
	if parseErr != nil {
		return parseErr
	}
	w := &directReply{header: make(http.Header)}
	reply.write(w, req, retryAfter(err))
	a.sent = int64(len(w.body))
	out := fmt.Appendf(c.out[:0], "HTTP/1.1 %d %s\r\nDate: %s\r\n", w.status, http.StatusText(w.status), httpDate())
	for name, values := range w.header {
		for _, value := range values {
			out = field{[]byte(name), []byte(value)}.append(out)
		}
	}
	if c.head.close {
		out = append(out, "Connection: close\r\n"...)
	}
	if err := c.writeOut(append(append(out, "\r\n"...), w.body...)); err != nil {
		return err
	}
	if c.head.close {
		return io.EOF
	}
	return nil
}

// directReply is the [http.ResponseWriter] of an answer of our own.
type directReply struct {
	header http.Header
	status int
	body   []byte
}

func (w *directReply) Header() http.Header    { return w.header }
func (w *directReply) WriteHeader(status int) { w.status = status }
func (w *directReply) Write(p []byte) (int, error) {
	w.body = append(w.body, p...)
	return len(p), nil
}

// dateNow is the Date field of one second.
type dateNow struct {
	second int64
	text   []byte
}

var lastDate atomic.Pointer[dateNow]

// httpDate is the time as RFC 9110 §5.6.7 wants it.
func httpDate() []byte {
	now := time.Now()
	if d := lastDate.Load(); d != nil && d.second == now.Unix() {
		return d.text
	}
	d := &dateNow{now.Unix(), now.UTC().AppendFormat(nil, http.TimeFormat)}
	lastDate.Store(d)
	return d.text
}

package proxy

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"time"

	"tenement"
)

// errNotTaken ends an exchange whose client does not take the response in.
var errNotTaken = &tenement.Error{Code: tenement.CodeCanceled, Op: "write response", Err: errors.New("the client does not read")}

// responseWriter is the server's, with a watch on clients that do not read.
type responseWriter struct {
	http.ResponseWriter
	control  *http.ResponseController
	request  *http.Request
	stall    watch
	adopt    func(net.Conn, *bufio.Reader) net.Conn // takes a hijacked connection over; may be nil
	wrote    bool                                   // a final status
	status   int                                    // that; 0: none was sent
	sent     int64                                  // bytes of the body
	hijacked bool
}

// newResponseWriter makes a writer that calls stalled, once, after it has made a
// write fail that took longer than limit.
func newResponseWriter(w http.ResponseWriter, r *http.Request, limit time.Duration, stalled func()) *responseWriter {
	rw := &responseWriter{ResponseWriter: w, control: http.NewResponseController(w), request: r}
	rw.stall = watch{limit: limit, expired: func() {
		rw.control.SetWriteDeadline(aLongTimeAgo)
		stalled()
	}}
	return rw
}

// begun reports whether the response can no longer be replaced.
func (w *responseWriter) begun() bool { return w.wrote || w.hijacked }

// end bounds what the server still has to write after the handler. The server
// clears the deadline before the next request.
func (w *responseWriter) end() {
	w.stall.end()
	if !w.hijacked {
		w.control.SetWriteDeadline(time.Now().Add(w.stall.limit))
	}
}

// WriteHeader drops two kinds of interim response: HTTP/1.0 has none (RFC 9110
// §15.2), and 100 is sent by the server itself when the tenant's makes us read
// the body.
func (w *responseWriter) WriteHeader(status int) {
	interim := status < 200 && status != http.StatusSwitchingProtocols
	if interim && (!w.request.ProtoAtLeast(1, 1) || status == http.StatusContinue && w.request.Header.Get("Expect") != "") {
		return
	}
	w.wrote = w.wrote || !interim
	if !interim && w.status == 0 {
		w.status = status
	}
	w.stall.start()
	w.ResponseWriter.WriteHeader(status)
	w.stall.stop()
}

func (w *responseWriter) Write(p []byte) (int, error) {
	w.begin()
	w.stall.start()
	defer w.stall.stop()
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	return n, err
}

// begin is for what sends a header without having been given one.
func (w *responseWriter) begin() {
	w.wrote = true
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

// FlushError is what [http.ResponseController.Flush] calls.
func (w *responseWriter) FlushError() error {
	w.begin()
	w.stall.start()
	defer w.stall.stop()
	return w.control.Flush()
}

// Flush makes it an [http.Flusher] for handlers that ask for one.
func (w *responseWriter) Flush() { _ = w.FlushError() }

// Hijack is what [http.ResponseController.Hijack] calls. The connection it
// returns yields first what the server had already read from it: whoever takes a
// connection over tends to forget the reader that comes with it.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := w.control.Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.hijacked = true
	if w.adopt != nil {
		conn = w.adopt(conn, buffered.Reader)
	}
	return conn, buffered, nil
}

func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

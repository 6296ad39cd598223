package proxy

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tenement"
)

// lingerTimeout is how long a client that got its answer early may go on sending
// a body nobody reads. Closing while it sends could cost it the answer.
const lingerTimeout = 5 * time.Second

// What a client can do wrong with a request body.
var (
	errTooLarge = &tenement.Error{Code: tenement.CodeInvalid, Op: "read request body", Err: errors.New("larger than the service accepts")}
	errStalled  = &tenement.Error{Code: tenement.CodeInvalid, Op: "read request body", Err: errors.New("no progress")}
	errUnread   = errors.New("the request body belongs to another attempt")
)

// aLongTimeAgo is a deadline that makes whatever waits return at once.
var aLongTimeAgo = time.Unix(1, 0)

func hasBody(r *http.Request) bool { return r.ContentLength != 0 }

// exceeds compares a Content-Length, -1 when unknown, with a bound, 0 for none.
func exceeds(length int64, limit tenement.Bytes) bool { return limit > 0 && length > int64(limit) }

// requestBody reads what the client sends, bounded in size and in idleness, for
// any number of attempts of which at most one gets to read.
type requestBody struct {
	in      *http.Request
	control *http.ResponseController
	limit   int64 // bytes; 0 = none
	stall   watch

	source io.Reader   // set by rewrite
	target http.Header // trailers of the forwarded request; set by rewrite

	complete atomic.Bool  // read to its end
	closed   atomic.Bool  // nothing may be read any more
	received atomic.Int64 // bytes

	mu      sync.Mutex // held while reading
	read    int64
	failure atomic.Pointer[bodyFailure]
}

type bodyFailure struct{ err error }

// newRequestBody makes both directions of an HTTP/1.1 connection independent:
// otherwise the server holds a response back until the request has arrived.
func newRequestBody(in *http.Request, control *http.ResponseController, stall time.Duration) *requestBody {
	b := &requestBody{in: in, control: control}
	b.stall = watch{limit: stall, expired: func() { control.SetReadDeadline(aLongTimeAgo) }}
	if in.ProtoMajor == 1 {
		control.EnableFullDuplex()
	}
	return b
}

// forward prepares the forwarded request's body and trailers.
func (b *requestBody) forward(out *http.Request) {
	b.source = out.Body
	b.target = make(http.Header, len(b.in.Trailer))
	for name := range b.in.Trailer {
		if forwardsTrailer(name) {
			b.target[name] = nil // announced; the value comes last
		}
	}
	if len(b.target) > 0 {
		out.ContentLength = -1 // HTTP/1.1 has trailers only behind chunks
	}
	out.Trailer = b.target
}

// forwardsTrailer keeps back what would change the message itself, should the
// tenant merge trailers into its header (RFC 9110 §6.5.1). The server lets such
// fields pass when they were not announced.
func forwardsTrailer(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Authorization", "Connection", "Content-Encoding", "Content-Length", "Content-Range", "Content-Type",
		"Cookie", "Expect", "Host", "Keep-Alive", "Max-Forwards", "Proxy-Authorization", "Proxy-Connection",
		"Range", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return false
	}
	return isToken(name) && !isForwarding(name)
}

// fault is what the client did wrong, or nil. A read that was broken off cancels the
// request before it returns, so that the clock may know more than the reader.
func (b *requestBody) fault() error {
	if b == nil {
		return nil
	}
	if f := b.failure.Load(); f != nil {
		return f.err
	}
	if b.stall.isLate() {
		return errStalled
	}
	return nil
}

// answered ends the watch on the client: from the first byte of a response on,
// a silent client is the tenant's to judge, as in any conversation.
func (b *requestBody) answered() { b.stall.end() }

func (b *requestBody) readNext(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() {
		return 0, errUnread
	}
	b.stall.start()
	n, err := b.source.Read(p)
	b.stall.stop()
	b.read += int64(n)
	b.received.Add(int64(n))
	if over := b.read - b.limit; b.limit > 0 && over > 0 {
		n, err = n-int(over), errTooLarge
	}
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.forwardTrailers()
		b.complete.Store(true)
	default:
		err = b.fail(err)
	}
	return n, err
}

func (b *requestBody) fail(err error) error {
	switch {
	case errors.Is(err, errTooLarge):
	case b.stall.end():
		err = errStalled
	default:
		err = &tenement.Error{Code: tenement.CodeInvalid, Op: "read request body", Err: err}
	}
	b.closed.Store(true)
	b.failure.CompareAndSwap(nil, &bodyFailure{err})
	return err
}

// forwardTrailers copies what the server found behind the body; the reverse proxy
// has cloned the map before it was filled.
func (b *requestBody) forwardTrailers() {
	for name, values := range b.in.Trailer {
		if !forwardsTrailer(name) {
			continue
		}
		for _, v := range values {
			if strings.IndexFunc(v, isControl) < 0 {
				b.target[name] = append(b.target[name], v)
			}
		}
	}
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// end leaves the client's connection in order. The rest of a body that was not
// read must never be taken for the next request, so the connection is closed.
func (b *requestBody) end(w *responseWriter) {
	b.stall.end()
	b.closed.Store(true)
	if b.in.ProtoMajor != 1 || b.complete.Load() || w.hijacked {
		return
	}
	b.control.SetReadDeadline(aLongTimeAgo) // ends a read that is under way
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.complete.Load() {
		b.control.SetReadDeadline(time.Time{})
		return
	}
	closeAfterReply(w.ResponseWriter)
	b.control.SetReadDeadline(time.Now().Add(lingerTimeout))
}

// closeAfterReply makes the server end the connection, gently, when the response
// is out, even if its header already is: that is what [http.MaxBytesReader] does
// to a response whose request was too long.
func closeAfterReply(w http.ResponseWriter) {
	for {
		inner, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = inner.Unwrap()
	}
	var one [1]byte
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(one[:])
}

// attempt gives one attempt its view of the body; nil when there is none. While
// the client is awaited the tenant's clock stands still, and every piece that was
// read sets it back: patience measures the tenant and not the client.
func (b *requestBody) attempt(out *http.Request, patience *watch) *attemptBody {
	if b == nil || out.Body == nil {
		return nil
	}
	return &attemptBody{body: b, patience: patience}
}

// attemptBody is the body as one attempt sees it. After seal it reads nothing, so
// that a late reader cannot take bytes away from the next attempt.
type attemptBody struct {
	body     *requestBody
	patience *watch

	mu      sync.Mutex
	touched bool
	sealed  bool
}

func (a *attemptBody) Read(p []byte) (int, error) {
	if !a.touch() {
		return 0, errUnread
	}
	a.patience.stop()
	n, err := a.body.readNext(p)
	a.patience.start()
	return n, err
}

// Close does nothing: the body may be needed for another attempt.
func (a *attemptBody) Close() error { return nil }

func (a *attemptBody) touch() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.touched = a.touched || !a.sealed
	return !a.sealed
}

// seal ends the attempt and reports whether the body is as it was before.
func (a *attemptBody) seal() (unread bool) {
	if a == nil {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sealed = true
	return !a.touched
}

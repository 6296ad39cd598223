package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// headKind says who answers a request.
type headKind uint8

const (
	headIncomplete headKind = iota
	headPlain               // it has no body and nothing unusual: may be answered directly
	headFramed              // net/http, and it is known where the request ends
	headForeign             // net/http, which alone knows
)

// field is one line of a header, as it was sent.
type field struct{ name, value []byte }

// requestHead is the header of a request. It points into the bytes it was made of.
type requestHead struct {
	method, target, host []byte
	fields               []field // those that are forwarded as they are
	forwarding           []field // those that say where the request comes from
	length               int     // of the header, in bytes, with the empty line
	body                 int64   // Content-Length
	measured             bool    // there is a Content-Length
	close                bool    // the client wants the connection closed
}

// parse reads the header at the start of b. Whatever is not exactly what RFC 9112 has
// clients write is net/http's to judge.
func (h *requestHead) parse(b []byte) headKind {
	*h = requestHead{fields: h.fields[:0], forwarding: h.forwarding[:0]}
	line, rest, kind := cutLine(b)
	if kind != headPlain {
		return kind
	}
	if kind = h.parseRequestLine(line); kind == headForeign {
		return headForeign
	}
	for {
		var next headKind
		if line, rest, next = cutLine(rest); next != headPlain {
			return next
		}
		if len(line) == 0 {
			break
		}
		f, ok := parseField(line)
		if !ok {
			return headForeign
		}
		if kind = max(kind, h.note(f)); kind == headForeign {
			return headForeign
		}
	}
	if h.host == nil {
		return headForeign
	}
	h.length = len(b) - len(rest)
	return kind
}

// cutLine takes the first line off b. A line that does not end in CRLF is foreign.
func cutLine(b []byte) (line, rest []byte, kind headKind) {
	end := bytes.IndexByte(b, '\n')
	switch {
	case end < 0:
		return nil, nil, headIncomplete
	case end == 0 || b[end-1] != '\r':
		return nil, nil, headForeign
	}
	return b[:end-1], b[end+1:], headPlain
}

func (h *requestHead) parseRequestLine(line []byte) headKind {
	var ok bool
	if h.method, line, ok = bytes.Cut(line, []byte(" ")); !ok {
		return headForeign
	}
	h.target, line, ok = bytes.Cut(line, []byte(" "))
	if !ok || string(line) != "HTTP/1.1" || len(h.target) == 0 || !isVisible(h.target) {
		return headForeign
	}
	switch string(h.method) {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodDelete:
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		return headFramed
	default:
		return headForeign
	}
	if h.target[0] != '/' || bytes.HasPrefix(h.target, []byte("//")) || bytes.IndexByte(h.target, '#') >= 0 {
		return headFramed
	}
	return headPlain
}

// path is the decoded path of the target; false if it cannot be decoded.
func (h *requestHead) path() (string, bool) {
	raw, _, _ := bytes.Cut(h.target, []byte("?"))
	if bytes.IndexByte(raw, '%') < 0 {
		return string(raw), true
	}
	path, err := url.PathUnescape(string(raw))
	return path, err == nil
}

// isVisible reports whether b is of visible ASCII alone.
func isVisible(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// parseField reads one line of a header. One that continues the line before is refused.
func parseField(line []byte) (f field, ok bool) {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || !isToken(line[:colon]) {
		return field{}, false
	}
	value := bytes.Trim(line[colon+1:], " \t")
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return field{}, false
		}
	}
	return field{line[:colon], value}, true
}

// note takes one field in, and says what it makes of the request.
func (h *requestHead) note(f field) headKind {
	switch {
	case f.is("Host"):
		if h.host != nil || !isPlainHost(f.value) {
			return headForeign
		}
		h.host = f.value
	case f.is("Content-Length"):
		n, err := strconv.ParseUint(string(f.value), 10, 63)
		if err != nil || h.measured {
			return headForeign
		}
		h.body, h.measured = int64(n), true //nolint:gosec // 63 bits
		return headFramed
	case f.is("Connection"):
		switch {
		case equalFold(f.value, "close"):
			h.close = true
		case !equalFold(f.value, "keep-alive"):
			return headForeign
		}
	case f.is("Keep-Alive"), f.is("Proxy-Connection"), f.is(cronHeader), f.is(cronAtHeader):
	case f.is("Transfer-Encoding"), f.is("Upgrade"), f.is("Trailer"):
		return headForeign
	case f.is("Expect"), f.is("Te"), f.is("Http2-Settings"), f.is("Proxy-Authorization"), f.is("Proxy-Authenticate"):
		return headFramed
	case (f.name[0]|0x20 == 'f' || f.name[0]|0x20 == 'x') && isForwarding(string(f.name)):
		h.forwarding = append(h.forwarding, f)
	default:
		h.fields = append(h.fields, f)
	}
	return headPlain
}

// isPlainHost reports whether host is a name or an IPv4 address, perhaps with a port.
func isPlainHost(host []byte) bool {
	for _, c := range host {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == ':', c == '_':
		default:
			return false
		}
	}
	return len(host) > 0
}

// is compares the name, whatever its case.
func (f field) is(name string) bool { return equalFold(f.name, name) }

// equalFold compares ASCII without allocating.
func equalFold(b []byte, s string) bool {
	return len(b) == len(s) && strings.EqualFold(string(b), s)
}

// Errors of a response that cannot be forwarded.
var (
	errMalformedResponse = errors.New("the header of the response is malformed")
	errUnasked           = errors.New("the response switches protocols, which nobody asked for")
)

// responseHead is the header of a response.
type responseHead struct {
	status  int
	reason  []byte
	fields  []field
	legacy  bool  // older than HTTP/1.1
	length  int64 // of the body, unless that is chunked; -1: unknown
	chunked bool
	close   bool // the process closes the connection behind it
	date    bool // it has one
}

// parse reads a whole header, with its empty line, into fields that it appends to buf.
func (h *responseHead) parse(b []byte, buf []field) error {
	*h = responseHead{length: -1, fields: buf[:0]}
	line, rest := cutAnyLine(b)
	if err := h.parseStatusLine(line); err != nil {
		return err
	}
	for {
		if line, rest = cutAnyLine(rest); len(line) == 0 {
			break
		}
		f, ok := parseField(line)
		if !ok {
			if err := h.parseLeniently(b); err != nil {
				return err
			}
			break
		}
		h.fields = append(h.fields, f)
	}
	return h.frame()
}

// cutAnyLine takes the first line off b, which ends in LF at least.
func cutAnyLine(b []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(b, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), rest
}

// parseStatusLine takes what [http.ReadResponse] takes.
func (h *responseHead) parseStatusLine(line []byte) error {
	version, status, _ := bytes.Cut(line, []byte(" "))
	code, reason, _ := bytes.Cut(bytes.TrimLeft(status, " "), []byte(" "))
	major, minor, ok := http.ParseHTTPVersion(string(version))
	n, err := strconv.ParseUint(string(code), 10, 16)
	if !ok || len(code) != 3 || err != nil || n < 100 {
		return errMalformedResponse
	}
	h.legacy = major < 1 || major == 1 && minor == 0
	h.status, h.reason = int(n), reason
	return nil
}

// parseLeniently reads the fields of a header that is not quite what it should be, as
// [http.ReadResponse] does.
func (h *responseHead) parseLeniently(b []byte) error {
	_, b = cutAnyLine(b)
	parsed, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(b))).ReadMIMEHeader()
	if err != nil {
		return err
	}
	h.fields = h.fields[:0]
	for name, values := range parsed {
		for _, value := range values {
			if isToken(name) {
				h.fields = append(h.fields, field{[]byte(name), []byte(oneLine.Replace(value))})
			}
		}
	}
	return nil
}

var oneLine = strings.NewReplacer("\r", " ", "\n", " ")

// frame finds out how the body is delimited (RFC 9112 §6.3).
func (h *responseHead) frame() error {
	var length []byte
	keep := false
	for _, f := range h.fields {
		switch {
		case f.is("Content-Length"):
			n, err := strconv.ParseUint(string(f.value), 10, 63)
			if err != nil || length != nil && !bytes.Equal(length, f.value) {
				return errMalformedResponse
			}
			h.length, length = int64(n), f.value //nolint:gosec // 63 bits
		case f.is("Transfer-Encoding") && !h.legacy:
			if h.chunked || !equalFold(f.value, "chunked") {
				return errMalformedResponse
			}
			h.chunked = true
		case f.is("Connection"):
			h.close = h.close || hasToken(f.value, "close")
			keep = keep || hasToken(f.value, "keep-alive")
		case f.is("Date"):
			h.date = true
		}
	}
	h.close = h.close || h.legacy && !keep
	if h.status == http.StatusSwitchingProtocols {
		return errUnasked
	}
	return nil
}

// hasBody reports whether a body follows, in answer to a request that is a HEAD or is not.
func (h *responseHead) hasBody(head bool) bool {
	return !head && (h.length != 0 || h.chunked) && !h.isBare()
}

// isBare reports whether there is no body whatever the header says.
func (h *responseHead) isBare() bool {
	return h.status < 200 || h.status == http.StatusNoContent || h.status == http.StatusNotModified
}

// hasToken reports whether a list of tokens has one.
func hasToken(list []byte, token string) bool {
	for one := range bytes.SplitSeq(list, []byte(",")) {
		if equalFold(bytes.TrimSpace(one), token) {
			return true
		}
	}
	return false
}

// isHop reports whether f is for the next hop alone (RFC 9110 §7.6.1): by its name, or
// because a Connection field among all names it.
func (f field) isHop(all []field) bool {
	switch len(f.name) {
	case len("Te"), len("Trailer"), len("Connection"), len("Proxy-Connection"), len("Transfer-Encoding"), len("Proxy-Authenticate"), len("Proxy-Authorization"):
		for _, name := range []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade"} {
			if f.is(name) {
				return true
			}
		}
	}
	for _, other := range all {
		if other.is("Connection") && hasToken(other.value, string(f.name)) {
			return true
		}
	}
	return false
}

package proxy

import (
	"net/http"
	"net/netip"
	"strings"
)

const (
	forwardedFor   = "X-Forwarded-For"
	forwardedHost  = "X-Forwarded-Host"
	forwardedProto = "X-Forwarded-Proto"
	forwarded      = "Forwarded"
)

// setForwarding sets the fields that tell a tenant who its client is. What the
// client said itself is dropped, in any spelling that a tenant could take for such
// a field, unless it is a trusted proxy: then For and Forwarded are added to, the
// others are kept. X-Real-IP is not ours and passes through.
func setForwarding(out http.Header, in *http.Request, trusted bool) {
	for name := range out {
		if isForwarding(name) && (!trusted || strings.Contains(name, "_")) {
			delete(out, name)
		}
	}
	hop := element{host: in.Host, proto: "http"}
	if in.TLS != nil {
		hop.proto = "https"
	}
	if addr, known := address(in.RemoteAddr); known {
		hop.client = addr.String()
	}
	hop.set(out)
	if trusted {
		keepForwarding(out, in.Header, hop)
	}
}

// set says what e knows. What e.client is empty for, it does not know.
func (e element) set(out http.Header) {
	if e.client != "" {
		out[forwardedFor] = []string{e.client}
	}
	out[forwardedHost] = []string{e.host}
	out[forwardedProto] = []string{e.proto}
	out[forwarded] = []string{e.String()}
}

// keepForwarding puts what a trusted proxy says before what we say.
func keepForwarding(out, in http.Header, hop element) {
	if prior := in[forwardedFor]; len(prior) > 0 {
		out[forwardedFor] = []string{strings.Join(append(prior[:len(prior):len(prior)], hop.client), ", ")}
	}
	for _, name := range []string{forwardedHost, forwardedProto} {
		if prior := in[name]; len(prior) > 0 {
			out[name] = prior
		}
	}
	prior := in[forwarded]
	if len(prior) == 0 {
		prior = translate(in)
	}
	if len(prior) > 0 {
		out[forwarded] = []string{strings.Join(append(prior[:len(prior):len(prior)], hop.String()), ", ")}
	}
}

// translate makes Forwarded from X-Forwarded-* as RFC 7239 §7.4 encourages: a
// tenant that prefers the former must not take our link to the proxy, which is
// seldom encrypted, for the client's. Host and proto belong to the first hop.
func translate(in http.Header) []string {
	var elements []string
	for _, line := range in[forwardedFor] {
		for client := range strings.SplitSeq(line, ",") {
			if client = strings.TrimSpace(client); client != "" {
				hop := element{client: client}
				if len(elements) == 0 {
					hop.host, hop.proto = in.Get(forwardedHost), in.Get(forwardedProto)
				}
				elements = append(elements, hop.String())
			}
		}
	}
	return elements
}

// isForwarding reports whether name is a forwarding field or is one to a tenant
// whose gateway interface writes "-" and "_" alike (CGI, WSGI, Rack).
func isForwarding(name string) bool {
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	return name == "forwarded" || name == "x-forwarded" || strings.HasPrefix(name, "x-forwarded-")
}

// element is one forwarded-element of RFC 7239 §4.
type element struct{ client, host, proto string }

func (e element) String() string {
	var b strings.Builder
	b.Grow(len("for=;host=;proto=") + len(e.client) + len(e.host) + len(e.proto) + 8)
	b.WriteString("for=")
	writeNode(&b, e.client)
	if e.host != "" {
		b.WriteString(";host=")
		writeValue(&b, e.host)
	}
	if e.proto != "" {
		b.WriteString(";proto=")
		writeValue(&b, e.proto)
	}
	return b.String()
}

// writeNode writes a node of RFC 7239 §6: IPv6 goes in brackets, and so in quotes.
func writeNode(b *strings.Builder, client string) {
	if client == "" {
		client = "unknown"
	}
	if addr, err := netip.ParseAddr(client); err == nil && addr.Is6() {
		client = "[" + client + "]"
	}
	writeValue(b, client)
}

// writeValue writes a token, or else a quoted-string (RFC 9110 §5.6).
func writeValue(b *strings.Builder, s string) {
	if isToken(s) {
		b.WriteString(s)
		return
	}
	b.WriteByte('"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
}

// isToken reports whether s is a token (RFC 9110 §5.6.2).
func isToken[T string | []byte](s T) bool {
	for i := range len(s) {
		if !tokenBytes[s[i]] {
			return false
		}
	}
	return len(s) > 0
}

var tokenBytes = func() (is [256]bool) {
	for c := range is {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		is[c] = letter || '0' <= c && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c))
	}
	return is
}()

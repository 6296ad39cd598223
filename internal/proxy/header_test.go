package proxy

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// seen is a request as a tenant got it.
type seen struct {
	Line string
	Head http.Header
}

// newEcho is a tenant that answers with the request it got, byte for byte as far
// as the header goes.
func newEcho(t testing.TB) *life {
	return newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			head, err := readHead(r)
			if err != nil {
				return
			}
			line, fields, _ := strings.Cut(head, "\r\n")
			s := seen{Line: line, Head: http.Header{}}
			for field := range strings.SplitSeq(strings.TrimSuffix(fields, "\r\n"), "\r\n") {
				name, value, _ := strings.Cut(field, ": ")
				s.Head[name] = append(s.Head[name], value)
			}
			reply, _ := json.Marshal(s)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(reply), reply)
			if s.Head["Transfer-Encoding"] != nil {
				_, _ = readHead(r) // the end of an empty body
			}
		}
	})
}

// echo sends raw lines and returns what the tenant saw.
func (f *front) echo(t testing.TB, lines ...string) seen {
	t.Helper()
	c := f.raw(t)
	c.send(append(lines, "", "")...)
	res := c.response(http.MethodGet)
	var s seen
	if body := readAll(t, res); res.StatusCode != http.StatusOK || json.Unmarshal([]byte(body), &s) != nil {
		t.Fatalf("%s %s", res.Status, body)
	}
	return s
}

// ours is what the proxy sets for a client on loopback.
func ours() http.Header {
	return http.Header{
		"X-Forwarded-For":   {"127.0.0.1"},
		"X-Forwarded-Host":  {aliceHost},
		"X-Forwarded-Proto": {"http"},
		"Forwarded":         {"for=127.0.0.1;host=" + aliceHost + ";proto=http"},
		"Host":              {aliceHost},
	}
}

func with(h http.Header, more ...string) http.Header {
	for i := 0; i < len(more); i += 2 {
		h[more[i]] = append(h[more[i]], more[i+1])
	}
	return h
}

func TestRequestHeaders(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newEcho(t)}, nil)
	tests := map[string]struct {
		lines []string
		want  http.Header
	}{
		"nothing is added": {nil, ours()},
		"credentials, duplicates and what we do not know": {
			[]string{"Authorization: Bearer x", "Cookie: a=1", "Cookie: b=2", "X-Real-Ip: 1.2.3.4", "Accept-Encoding: br", "User-Agent: it", "X-A: 2", "X-A: 1", "Via: 1.0 x"},
			with(ours(), "Authorization", "Bearer x", "Cookie", "a=1", "Cookie", "b=2", "X-Real-Ip", "1.2.3.4", "Accept-Encoding", "br", "User-Agent", "it", "X-A", "2", "X-A", "1", "Via", "1.0 x"),
		},
		"hop by hop": {
			[]string{"Connection: keep-alive, X-Mine", "X-Mine: 1", "Keep-Alive: 5", "Proxy-Connection: keep-alive", "Te: gzip", "X-End: 1"},
			with(ours(), "X-End", "1"),
		},
		"trailers are welcome": {[]string{"Te: trailers", "Connection: te"}, with(ours(), "Te", "trailers")},
		"upgrade":              {[]string{"Connection: upgrade, x-mine", "Upgrade: foo", "X-Mine: 1"}, with(ours(), "Connection", "Upgrade", "Upgrade", "foo")},
		"no way around us by h2c": {
			[]string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"}, ours(),
		},
		"h2c among others": {[]string{"Connection: Upgrade", "Upgrade: h2c, foo"}, with(ours(), "Connection", "Upgrade", "Upgrade", "foo")},
		"a client's own forwarding fields": {
			[]string{"X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil", "X-Forwarded-Proto: https", "Forwarded: for=6.6.6.6", "X-Forwarded-Port: 1", "X-Forwarded-Prefix: /", "X_Forwarded_For: 6.6.6.6", "x-forwarded_proto: https"},
			ours(),
		},
		"ours cannot be removed": {[]string{"Connection: X-Forwarded-For, Forwarded"}, ours()},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := f.echo(t, append([]string{"GET / HTTP/1.1", "Host: " + aliceHost}, tt.lines...)...)
			if diff := cmp.Diff(tt.want, got.Head); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestTrustedProxy(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newEcho(t)}, func(_ *world, c *Config) {
		c.TrustedProxies = func() []netip.Prefix {
			return []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")}
		}
	})
	own := "for=127.0.0.1;host=" + aliceHost + ";proto=http"
	forwarding := func(xff, host, proto, fwd string) http.Header {
		return http.Header{"Host": {aliceHost}, "X-Forwarded-For": {xff}, "X-Forwarded-Host": {host}, "X-Forwarded-Proto": {proto}, "Forwarded": {fwd}}
	}
	tests := map[string]struct {
		lines []string
		want  http.Header
	}{
		"says nothing": {nil, ours()},
		"says everything": {
			[]string{"X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: 5.6.7.8", "X-Forwarded-Host: shop", "X-Forwarded-Proto: https", "X-Forwarded-Port: 443", "Forwarded: for=1.2.3.4", "Forwarded: for=5.6.7.8"},
			with(forwarding("1.2.3.4, 5.6.7.8, 127.0.0.1", "shop", "https", "for=1.2.3.4, for=5.6.7.8, "+own), "X-Forwarded-Port", "443"),
		},
		"says it the old way only": {
			[]string{"X-Forwarded-For: 2001:db8::1, 5.6.7.8", "X-Forwarded-Host: shop:8443", "X-Forwarded-Proto: https"},
			forwarding("2001:db8::1, 5.6.7.8, 127.0.0.1", "shop:8443", "https", `for="[2001:db8::1]";host="shop:8443";proto=https, for=5.6.7.8, `+own),
		},
		"passes its client's spelling on": {[]string{"X_Forwarded_For: 6.6.6.6"}, ours()},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := f.echo(t, append([]string{"GET / HTTP/1.1", "Host: " + aliceHost}, tt.lines...)...)
			if diff := cmp.Diff(tt.want, got.Head); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestTrusts(t *testing.T) {
	t.Parallel()
	h := New(Config{TrustedProxies: func() []netip.Prefix {
		return []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")}
	}})
	for remote, want := range map[string]bool{
		"10.1.2.3:80": true, "[::ffff:10.1.2.3]:80": true, "[fe80::1%eth0]:80": true,
		"11.1.2.3:80": false, "[2001:db8::1]:1": false, "@": false, "": false,
	} {
		if got := h.trusts(remote); got != want {
			t.Errorf("%q: %v", remote, got)
		}
	}
}

func TestForwardedElement(t *testing.T) {
	t.Parallel()
	tests := map[string]element{
		"for=192.0.2.1;host=a.b;proto=http":                    {"192.0.2.1", "a.b", "http"},
		`for="[2001:db8::1]";host="a.b:8080";proto=https`:      {"2001:db8::1", "a.b:8080", "https"},
		`for=192.0.2.1;host="[2001:db8::1]:8080"`:              {"192.0.2.1", "[2001:db8::1]:8080", ""},
		"for=unknown;proto=http":                               {"", "", "http"},
		`for="\"\\";host=a`:                                    {`"\`, "a", ""},
		`for="192.0.2.1:4711"`:                                 {"192.0.2.1:4711", "", ""},
		`for=_hidden;host=` + strings.Repeat("a", 64) + `.com`: {"_hidden", strings.Repeat("a", 64) + ".com", ""},
	}
	for want, e := range tests {
		if got := e.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A client at a unix socket has no address.
func TestForwardingWithoutAddress(t *testing.T) {
	t.Parallel()
	h := http.Header{}
	setForwarding(h, &http.Request{RemoteAddr: "@", Host: "a"}, false)
	want := http.Header{"X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}, "Forwarded": {"for=unknown;host=a;proto=http"}}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Error(diff)
	}
}

// Path and query arrive as they were sent, however strange.
func TestTargetsPassExactly(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newEcho(t)}, nil)
	for _, target := range []string{
		"/", "/a/b", "/a%2Fb", "/a%2fb", "/a//b", "//a", "//a//b%2F?x", "/a/../b/.", "/?", "/?a;b", "/?%zz&b=%", "/?a=b&a=c&&",
		"/{x}|^", "/%7Bx%7D", "/a%20b+c", "/ä", "/a#b", "/?q#b", "/a:b@c", "/%", "/x?" + strings.Repeat("a=1&", 20000),
	} {
		if strings.HasSuffix(target, "%") && !strings.Contains(target, "?") {
			continue // refused by the server
		}
		if len(target) > maxHeaderBytes {
			target = target[:maxHeaderBytes/2]
		}
		got := f.echo(t, "GET "+target+" HTTP/1.1", "Host: "+aliceHost)
		if want := "GET " + target + " HTTP/1.1"; got.Line != want {
			t.Errorf("%q became %q", want, got.Line)
		}
	}
	if got := f.echo(t, "GET http://"+aliceHost+"/a%2Fb?c HTTP/1.1", "Host: ignored"); got.Line != "GET /a%2Fb?c HTTP/1.1" || got.Head.Get("Host") != aliceHost {
		t.Errorf("absolute form became %+v", got)
	}
	if got := f.echo(t, "OPTIONS * HTTP/1.1", "Host: "+aliceHost); got.Line != "OPTIONS * HTTP/1.1" {
		t.Errorf("asterisk form became %q", got.Line)
	}
}

func TestConnectIsRefused(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newDeadLife()}, nil)
	c := f.raw(t)
	c.send("CONNECT "+aliceHost+":80 HTTP/1.1", "Host: "+aliceHost+":80", "", "")
	if res := c.response(http.MethodConnect); res.StatusCode != http.StatusNotImplemented {
		t.Error(res.Status)
	}
}

// Whatever end-to-end fields a client sends arrive as they were, and nothing else does.
func TestHeadersRoundTrip(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newEcho(t)}, nil)
	names := rapid.StringMatching(`[A-Z][a-z]{1,8}(-[A-Z][a-z]{1,8}){0,2}`).Filter(func(s string) bool {
		return !slices.Contains(notPlain, s)
	})
	values := rapid.StringMatching(`[!-~]([ -~]{0,30}[!-~])?`)
	rapid.Check(t, func(rt *rapid.T) {
		want := ours()
		lines := []string{"GET / HTTP/1.1", "Host: " + aliceHost}
		fields := rapid.MapOfN(names, rapid.SliceOfN(values, 1, 3), 0, 8).Draw(rt, "fields")
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			for _, value := range fields[name] {
				lines = append(lines, name+": "+value)
				want[name] = append(want[name], value)
			}
		}
		if diff := cmp.Diff(want, f.echo(t, lines...).Head); diff != "" {
			rt.Errorf("(-want +got)\n%s", diff)
		}
	})
}

// notPlain are the fields that mean something on the way.
var notPlain = []string{"Connection", "Content-Length", "Expect", "Forwarded", "Host", "Keep-Alive", "Pragma", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// Requests that two parsers could read differently are refused or made plain.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newEcho(t)}, nil)
	host := "Host: " + aliceHost
	refused := map[string][]string{
		"two lengths":        {"POST / HTTP/1.1", host, "Content-Length: 3", "Content-Length: 4", "", "abcd"},
		"bad length":         {"POST / HTTP/1.1", host, "Content-Length: +3", "", "abc"},
		"unknown coding":     {"POST / HTTP/1.1", host, "Transfer-Encoding: xchunked", "", "0", "", ""},
		"two codings":        {"POST / HTTP/1.1", host, "Transfer-Encoding: chunked", "Transfer-Encoding: identity", "", "0", "", ""},
		"space before colon": {"POST / HTTP/1.1", host, "Content-Length : 3", "", "abc"},
		"two hosts":          {"GET / HTTP/1.1", host, "Host: other", "", ""},
		"no host":            {"GET / HTTP/1.1", "", ""},
		"bare CR in a value": {"GET / HTTP/1.1", host, "X: a\rb", "", ""},
		"control in target":  {"GET /a\tb HTTP/1.1", host, "", ""},
	}
	for name, lines := range refused {
		c := f.raw(t)
		c.send(lines...)
		if res := c.response(http.MethodPost); res.StatusCode < 400 || !res.Close {
			t.Errorf("%s: %s, close %v", name, res.Status, res.Close)
		}
	}
	folded := f.echo(t, "GET / HTTP/1.1", host, "X-Fold: a", "  b")
	if got := folded.Head["X-Fold"]; len(got) != 1 || got[0] != "a b" {
		t.Errorf("folded line became %q", got)
	}
	both := f.echo(t, "GET / HTTP/1.1", host, "Content-Length: 3", "Transfer-Encoding: chunked", "", "0")
	if both.Head["Content-Length"] != nil {
		t.Errorf("length beside coding: %v", both.Head)
	}
	same := f.echo(t, "GET / HTTP/1.1", host, "Content-Length: 0", "Content-Length: 0")
	if len(same.Head["Content-Length"]) > 1 {
		t.Errorf("repeated length: %v", same.Head)
	}
}

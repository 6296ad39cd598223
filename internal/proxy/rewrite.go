package proxy

import (
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strings"
)

// rewrite makes the forwarded request. The reverse proxy has removed hop-by-hop
// fields and its four forwarding fields, and cleaned the query.
func (x *exchange) rewrite(p *httputil.ProxyRequest) {
	p.Out.URL.Scheme = "http"
	p.Out.URL.Host = upstreamHost
	p.Out.URL.User = nil
	copyTarget(p)
	dropH2C(p.Out.Header)
	setForwarding(p.Out.Header, p.In, x.handler.trusts(p.In.RemoteAddr))
	if x.body != nil {
		x.body.forward(p.Out)
	}
}

// copyTarget forwards path and query as they were sent. What the server parsed
// cannot say how "{" or "%2f" was written, so where writing it anew would differ,
// the text itself goes out, except behind "//": there [url.URL] offers no way.
func copyTarget(p *httputil.ProxyRequest) {
	p.Out.URL.RawQuery = p.In.URL.RawQuery
	path, _, _ := strings.Cut(p.In.RequestURI, "?")
	if strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") && path != p.In.URL.EscapedPath() {
		p.Out.URL.Opaque = path
	}
}

// dropH2C ignores an offer to switch to HTTP/2, as a server may (RFC 9110 §7.8)
// and, since RFC 9113 §3.1 withdrew it, should: what came through that tunnel
// would reach the tenant with forwarding fields that nobody checked.
func dropH2C(h http.Header) {
	offered := h.Get("Upgrade")
	if offered == "" {
		return
	}
	kept := make([]string, 0, 1)
	for protocol := range strings.SplitSeq(offered, ",") {
		if protocol = strings.TrimSpace(protocol); !strings.EqualFold(protocol, "h2c") {
			kept = append(kept, protocol)
		}
	}
	h.Del("Http2-Settings")
	if len(kept) == 0 {
		h.Del("Upgrade")
		h.Del("Connection")
		return
	}
	h.Set("Upgrade", strings.Join(kept, ", "))
}

// trusts reports whether remote may speak for its clients.
func (h *Handler) trusts(remote string) bool {
	if h.config.TrustedProxies == nil {
		return false
	}
	addr, ok := address(remote)
	return ok && h.trustsAddr(addr)
}

func (h *Handler) trustsAddr(addr netip.Addr) bool {
	return h.config.TrustedProxies != nil && addr.IsValid() && among(h.config.TrustedProxies(), addr)
}

func among(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// address is the IP address of a [http.Request.RemoteAddr]; false for a client
// that has none, at a unix socket.
func address(remote string) (netip.Addr, bool) {
	endpoint, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}, false
	}
	return endpoint.Addr().Unmap().WithZone(""), true
}

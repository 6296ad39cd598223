package proxy

import (
	"net/http"
	"net/netip"
	"strings"
)

// FromClient is r with the client's address as its RemoteAddr where trusted proxies have
// passed it on: the last one in X-Forwarded-For that none of them is. What comes before
// that, the client may have made up. A port is not known then.
func FromClient(r *http.Request, trusted []netip.Prefix) *http.Request {
	addr, ok := address(r.RemoteAddr)
	if !ok || !among(trusted, addr) {
		return r
	}
	hops := strings.Split(strings.Join(r.Header[forwardedFor], ","), ",")
	for i := len(hops) - 1; i >= 0 && among(trusted, addr); i-- {
		before, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = before.Unmap().WithZone("")
	}
	from := *r
	from.RemoteAddr = netip.AddrPortFrom(addr, 0).String()
	return &from
}

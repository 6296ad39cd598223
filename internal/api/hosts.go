package api

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// OnlyHosts serves requests whose Host is an IP address, localhost or one of names, which
// are in lower case and without a port; to others it says 421. A page whose own name was
// made to lead here (DNS rebinding) has its browser send that name: what is refused is a
// name that its owner could have pointed at us without our knowing.
func OnlyHosts(next http.Handler, names func() []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostName(r.Host)
		_, err := netip.ParseAddr(host)
		if err == nil || host == "localhost" || host != "" && slices.Contains(names(), host) {
			next.ServeHTTP(w, r)
			return
		}
		refusal(http.StatusMisdirectedRequest, "the management API has another name than "+noted(r.Host),
			"use the address itself, or the name that admin_host or admin_listen in [settings] says").write(w)
	})
}

// hostName is a Host without port, brackets and trailing dot, in lower case.
func hostName(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

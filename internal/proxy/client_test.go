package proxy

import (
	"net/http"
	"net/netip"
	"testing"
)

func TestFromClient(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	for _, row := range []struct {
		remote string
		hops   []string
		want   string
	}{
		{"192.0.2.1:5", []string{"198.51.100.1"}, "192.0.2.1:5"}, // nobody we believe
		{"127.0.0.1:5", nil, "127.0.0.1:0"},
		{"127.0.0.1:5", []string{"198.51.100.1"}, "198.51.100.1:0"},
		{"[::ffff:127.0.0.1]:5", []string{"made up, 198.51.100.1"}, "198.51.100.1:0"},
		{"127.0.0.1:5", []string{"203.0.113.9, 198.51.100.1", "2001:db8::1"}, "198.51.100.1:0"},
		{"127.0.0.1:5", []string{"198.51.100.1, made up"}, "127.0.0.1:0"},
		{"127.0.0.1:5", []string{"127.0.0.2, 127.0.0.3"}, "127.0.0.2:0"},
		{"@", []string{"198.51.100.1"}, "@"},
	} {
		r := &http.Request{RemoteAddr: row.remote, Header: http.Header{"X-Forwarded-For": row.hops}}
		if got := FromClient(r, trusted).RemoteAddr; got != row.want || r.RemoteAddr != row.remote {
			t.Errorf("%s, %q: %s, want %s", row.remote, row.hops, got, row.want)
		}
	}
}

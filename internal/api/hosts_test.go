package api

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestOnlyHosts(t *testing.T) {
	t.Parallel()
	h := OnlyHosts(newTestServer(t, newFakeBackend()), func() []string { return []string{"", "admin.example.com"} })
	for host, want := range map[string]int{
		"127.0.0.1:9000": 200, "127.0.0.1": 200, "[::1]:9000": 200, "[::1]": 200, "[fe80::1%eth0]:9000": 200,
		"localhost:9000": 200, "LOCALHOST.": 200, "admin.example.com": 200, "Admin.Example.com.:9000": 200,
		"": 421, ":9000": 421, "evil.example": 421, "evil.example:9000": 421, "x.localhost": 421, "sub.admin.example.com": 421,
		"127.0.0.1.evil.example": 421, "admin.example.com@evil.example": 421,
	} {
		r := httptest.NewRequest(http.MethodGet, "/health", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Host %q: %d, want %d", host, w.Code, want)
		}
		if want == http.StatusMisdirectedRequest {
			checkProblem(t, w.Result(), w.Body.Bytes())
		}
	}
}

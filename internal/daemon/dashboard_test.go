package daemon_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"tenement"
	"tenement/internal/api"
)

const adminURL = "http://localhost"

// browser is somebody's, with its cookie.
type browser struct {
	*site
	cookie *http.Cookie
}

// logIn sends the form of the log-in page with a token, and wants a status.
func (s *site) logIn(token string, want int) *browser {
	s.t.Helper()
	form := strings.NewReader(url.Values{"token": {token}}.Encode())
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, adminURL+"/login", form)
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Origin", adminURL)
	answer, err := s.http.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != want {
		s.t.Fatalf("log-in: %s, want %d", answer.Status, want)
	}
	b := &browser{site: s}
	if cookies := answer.Cookies(); len(cookies) > 0 {
		b.cookie = cookies[0]
	}
	return b
}

// send is one request as a page of the dashboard sends it, and its status.
func (b *browser) send(method, path, fetchSite string) int {
	b.t.Helper()
	request, err := http.NewRequestWithContext(b.t.Context(), method, adminURL+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.cookie != nil {
		request.AddCookie(b.cookie)
	}
	request.Header.Set("Sec-Fetch-Site", fetchSite)
	answer, err := b.http.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

// TestDashboard: who logs in with a token may do there what the token may, as long as it
// counts, and nothing from a page that is not the dashboard's.
func TestDashboard(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	s.spawn("api:alice", "api:bob")
	token := func(scope tenement.Scope) api.NewSecret {
		made, err := s.api.CreateToken(t.Context(), api.TokenOptions{Scope: scope})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	admin, tenant := token(tenement.Scope{}), token(tenement.TenantScope("alice"))

	if !strings.Contains(s.get(adminURL+"/"), "/assets/app.js") {
		t.Error("the root domain has no dashboard")
	}
	s.wants(adminURL+"/health", http.StatusOK)
	s.wants(adminURL+"/api/instances", http.StatusUnauthorized)
	if _, page, err := s.ask(t.Context(), "http://alice.api.localhost/login"); err != nil || strings.Contains(page, "/assets/") {
		t.Errorf("a tenant's host answers with the dashboard: %s %v", page, err)
	}

	s.logIn("nonsense", http.StatusUnauthorized)
	s.logIn(token(tenement.Scope{Role: tenement.RoleMetrics}).Secret, http.StatusForbidden)
	operator, alice := s.logIn(admin.Secret, http.StatusSeeOther), s.logIn(tenant.Secret, http.StatusSeeOther)
	for _, row := range []struct {
		who          *browser
		method, path string
		site         string
		want         int
	}{
		{operator, "GET", "/api/box", "same-origin", 200},
		{operator, "GET", "/api/instances/api:bob", "same-origin", 200},
		{operator, "POST", "/api/instances/api:bob/start", "same-origin", 204},
		{operator, "POST", "/api/instances/api:bob/stop", "same-site", 403},
		{operator, "GET", "/api/instances/api:bob", "same-site", 401},
		{alice, "GET", "/api/instances/api:alice", "same-origin", 200},
		{alice, "POST", "/api/instances/api:alice/start", "same-origin", 204},
		{alice, "POST", "/api/instances/api:alice/suspend", "same-origin", 403},
		{alice, "GET", "/api/instances/api:bob", "same-origin", 404},
		{alice, "GET", "/api/logs/stream?instance=api:bob", "same-origin", 404},
		{alice, "GET", "/api/events/stream?instance=api:bob", "same-origin", 404},
		{alice, "GET", "/api/box", "same-origin", 403},
		{alice, "GET", "/api/tokens", "same-origin", 403},
	} {
		if got := row.who.send(row.method, row.path, row.site); got != row.want {
			t.Errorf("%s %s from %s: %d, want %d", row.method, row.path, row.site, got, row.want)
		}
	}
	if err := s.api.RevokeToken(t.Context(), tenant.ID); err != nil {
		t.Fatal(err)
	}
	if got := alice.send("GET", "/api/instances/api:alice", "same-origin"); got != 401 {
		t.Errorf("with a token that was revoked: %d", got)
	}
	operator.send("POST", "/logout", "same-origin")
	if got := operator.send("GET", "/api/box", "same-origin"); got != 401 {
		t.Errorf("after logging out: %d", got)
	}
}

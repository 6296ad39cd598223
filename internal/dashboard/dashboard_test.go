package dashboard

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeAPI takes the token "good" and notes who sent the last request.
type fakeAPI struct {
	authorization string
	path          string
	refusal       int // of every token; 0 for none
}

func newFakeAPI() *fakeAPI { return &fakeAPI{} }

func (a *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.authorization, a.path = r.Header.Get("Authorization"), r.Method+" "+r.URL.Path
	status := http.StatusOK
	switch {
	case !strings.HasPrefix(r.URL.Path, "/api/"):
		status = http.StatusNotFound
	case a.refusal != 0:
		status = a.refusal
		w.Header().Set("Retry-After", "7")
	case a.authorization != "Bearer good":
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(status)
	fmt.Fprint(w, `{"detail": "says <b>the API</b>", "hint": "try again"}`)
}

func send(h http.Handler, method, target string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const origin = "http://example.com" // of httptest's requests

// logIn posts the form as a browser does.
func logIn(h http.Handler, from, token, next string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/login", strings.NewReader(url.Values{"token": {token}, "next": {next}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", from)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// cookieOf is the one that a log-in was answered with.
func cookieOf(t *testing.T, w *httptest.ResponseRecorder) *http.Cookie {
	t.Helper()
	cookies := w.Result().Cookies()
	if w.Code != http.StatusSeeOther || len(cookies) != 1 {
		t.Fatalf("log-in: %d, %v, %s", w.Code, cookies, w.Body)
	}
	return cookies[0]
}

func TestPages(t *testing.T) {
	t.Parallel()
	api := newFakeAPI()
	h := New(api)
	for _, page := range []string{"/", "/instances/api:alice", "/wakes", "/logs", "/events", "/usage", "/tokens", "/box", "/login"} {
		w := send(h, http.MethodGet, page, nil)
		header := w.Header()
		if w.Code != http.StatusOK || header.Get("Content-Type") != "text/html; charset=utf-8" || header.Get("Cache-Control") == "" {
			t.Errorf("%s: %d, %v", page, w.Code, header)
		}
		if head := send(h, http.MethodHead, page, nil); head.Code != http.StatusOK {
			t.Errorf("HEAD %s: %d", page, head.Code)
		}
		if api.path != "" {
			t.Errorf("%s is the API's: %s", page, api.path)
		}
	}
	for _, other := range []string{"/health", "/metrics", "/api/instances", "/nothing", "/instances", "/instances/a:b/c", "/favicon.ico"} {
		if send(h, http.MethodGet, other, nil); api.path != "GET "+other {
			t.Errorf("%s is not the API's, but %q was", other, api.path)
		}
	}
	for _, target := range []string{"/", "/login", "/api/instances", "/assets/app.js", "/nothing"} {
		header := send(h, http.MethodGet, target, nil).Header()
		if header.Get("Content-Security-Policy") != h.policy || header.Get("X-Content-Type-Options") != "nosniff" ||
			header.Get("Referrer-Policy") != "same-origin" || header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
			t.Errorf("%s: %v", target, header)
		}
	}
}

func TestLogIn(t *testing.T) {
	t.Parallel()
	api := newFakeAPI()
	h := New(api)
	c := cookieOf(t, logIn(h, origin, " good\n", "/events"))
	if c.Name != plainCookie || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || strings.Contains(c.Value, "good") || len(c.Value) < 20 {
		t.Errorf("cookie %v", c)
	}
	cookie := http.Header{"Cookie": {c.Name + "=" + c.Value}}
	for _, row := range []struct {
		what, method string
		header       http.Header
		counts       bool
	}{
		{"a page of ours", "GET", http.Header{"Sec-Fetch-Site": {"same-origin"}}, true},
		{"the address typed", "GET", http.Header{"Sec-Fetch-Site": {"none"}}, true},
		{"a change from a page of ours", "POST", http.Header{"Sec-Fetch-Site": {"same-origin"}}, true},
		{"a tenant's page", "GET", http.Header{"Sec-Fetch-Site": {"same-site"}}, false},
		{"a tenant's page that says otherwise", "GET", http.Header{"Sec-Fetch-Site": {"same-site"}, "Origin": {origin}}, false},
		{"another site's page", "POST", http.Header{"Sec-Fetch-Site": {"cross-site"}}, false},
		{"no sign of a page", "GET", nil, false},
		{"our origin", "POST", http.Header{"Origin": {origin}}, true},
		{"our page", "GET", http.Header{"Referer": {origin + "/events"}}, true},
		{"another origin", "GET", http.Header{"Origin": {"http://alice.api.example.com"}}, false},
		{"another port", "GET", http.Header{"Origin": {origin + ":81"}}, false},
		{"another page", "GET", http.Header{"Referer": {"http://alice.api.example.com/http://example.com/"}}, false},
		{"a hidden origin", "GET", http.Header{"Origin": {"null"}}, false},
	} {
		header := cookie.Clone()
		for name, values := range row.header {
			header[name] = values
		}
		send(h, row.method, "/api/instances", header)
		if counted := api.authorization == "Bearer good"; counted != row.counts {
			t.Errorf("%s: the API is asked by %q", row.what, api.authorization)
		}
	}
	header := cookie.Clone()
	header["Sec-Fetch-Site"], header["Authorization"] = []string{"same-origin"}, []string{"Bearer other"}
	if send(h, "GET", "/api/instances", header); api.authorization != "Bearer other" {
		t.Errorf("the API is asked by %q in place of the token that was sent", api.authorization)
	}
}

// TestLogOut ends the session for whoever has its cookie.
func TestLogOut(t *testing.T) {
	t.Parallel()
	api := newFakeAPI()
	h := New(api)
	c := cookieOf(t, logIn(h, origin, "good", ""))
	header := http.Header{"Cookie": {c.Name + "=" + c.Value}, "Sec-Fetch-Site": {"cross-site"}}
	if w := send(h, "POST", "/logout", header); w.Code != http.StatusForbidden {
		t.Errorf("another site logs out: %d", w.Code)
	}
	header.Set("Sec-Fetch-Site", "same-origin")
	if send(h, "GET", "/api/instances", header); api.authorization != "Bearer good" {
		t.Fatalf("the API is asked by %q", api.authorization)
	}
	w := send(h, "POST", "/logout", header)
	gone := slices.ContainsFunc(w.Result().Cookies(), func(c *http.Cookie) bool { return c.Name == plainCookie && c.MaxAge < 0 })
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/login" || !gone {
		t.Errorf("log-out: %d, %v", w.Code, w.Header())
	}
	if send(h, "GET", "/api/instances", header); api.authorization != "" {
		t.Errorf("after it, the API is asked by %q", api.authorization)
	}
}

// TestSecureCookie is what a browser gets that came over HTTPS.
func TestSecureCookie(t *testing.T) {
	t.Parallel()
	h := New(newFakeAPI())
	c := cookieOf(t, logIn(h, "https://example.com", "good", ""))
	if c.Name != "__Host-ten_session" || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" {
		t.Errorf("cookie %v", c)
	}
	// Whoever can set the other one does not get in its place.
	other := cookieOf(t, logIn(h, origin, "good", ""))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.AddCookie(other)
	r.AddCookie(c)
	if got := sessionOf(r); got != c.Value {
		t.Errorf("session %q, want that of the __Host- cookie", got)
	}
}

// TestRefusedLogIn is answered with the page, what the API says in it, and no cookie.
func TestRefusedLogIn(t *testing.T) {
	t.Parallel()
	for _, refusal := range []int{0, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		api := newFakeAPI()
		api.refusal = refusal
		w := logIn(New(api), origin, "bad", `/"><script>`)
		want := refusal
		if want == 0 {
			want = http.StatusUnauthorized
			if w.Header().Get("Www-Authenticate") == "" {
				t.Error("no WWW-Authenticate")
			}
		} else if w.Header().Get("Retry-After") != "7" {
			t.Errorf("Retry-After is %q", w.Header().Get("Retry-After"))
		}
		body := w.Body.String()
		if w.Code != want || len(w.Result().Cookies()) != 0 || !strings.Contains(body, "&lt;b&gt;the API") || !strings.Contains(body, "try again") || strings.Contains(body, "<script>") {
			t.Errorf("%d, want %d: %v %s", w.Code, want, w.Header(), body)
		}
	}
	api := newFakeAPI()
	if w := logIn(New(api), "http://alice.api.example.com", "good", ""); w.Code != http.StatusForbidden || api.path != "" {
		t.Errorf("from another origin: %d, and the API was asked %q", w.Code, api.path)
	}
	if w := logIn(New(api), origin, strings.Repeat("x", maxForm), ""); w.Code != http.StatusUnauthorized {
		t.Errorf("a form that is too long: %d", w.Code)
	}
}

// TestDestination: nobody is led elsewhere by logging in.
func TestDestination(t *testing.T) {
	t.Parallel()
	for next, want := range map[string]string{
		"/": "/", "/events": "/events", "/instances/api:alice_1": "/instances/api:alice_1", "/?state=ready&text=a%20b": "/?state=ready&text=a%20b",
		"": "/", "events": "/", "//evil.example": "/", "https://evil.example": "/", `/\evil.example`: "/", "/\t/evil.example": "/",
		"/ü": "/", "/a\r\nSet-Cookie: x": "/", "javascript:alert(1)": "/",
	} {
		if got := destination(next); got != want {
			t.Errorf("%q leads to %q, want %q", next, got, want)
		}
	}
}

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s sessions
		used, unused := s.begin("a"), s.begin("b")
		time.Sleep(sessionIdle - time.Minute) // virtual
		if _, ok := s.token(used); !ok {
			t.Error("ended early")
		}
		time.Sleep(2 * time.Minute) // virtual
		if token, ok := s.token(used); !ok || token != "a" {
			t.Error("what is in use has ended")
		}
		if _, ok := s.token(unused); ok {
			t.Error("what is not used goes on")
		}
		if _, ok := s.token(""); ok {
			t.Error("nobody is logged in")
		}
		s.begin("c")
		time.Sleep(2 * sessionIdle) // virtual
		s.begin("d")
		if len(s.open) != 1 {
			t.Errorf("%d sessions are kept", len(s.open))
		}
	})
}

// TestSessionsAreBounded, and one token's push out no other's.
func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s sessions
		other, first := s.begin("other"), s.begin("many")
		for range sessionsPerToken {
			time.Sleep(time.Second) // virtual
			s.begin("many")
		}
		if len(s.open) != sessionsPerToken+1 {
			t.Errorf("%d sessions are kept", len(s.open))
		}
		if _, ok := s.token(other); !ok {
			t.Error("another token's session was pushed out")
		}
		if _, ok := s.token(first); ok {
			t.Error("the oldest one was kept")
		}
	})
}

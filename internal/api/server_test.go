package api

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tenement"
)

var update = flag.Bool("update", false, "write testdata/openapi.json anew")

func TestOpenAPIDocument(t *testing.T) {
	t.Parallel()
	const golden = "testdata/openapi.json"
	resp, err := (&http.Client{}).Get(overTCP(t, newTestServer(t, newFakeBackend())) + "/api/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "application/openapi+json" {
		t.Errorf("Content-Type is %q", ct)
	}
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the API changed; if that is meant, run go test ./internal/api -update\n%s", diff)
	}
}

func TestAuditLog(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	s := newTestServer(t, b)
	url := overTCP(t, s)
	adminSecret, tenantSecret := b.secret(t, ""), b.secret(t, "alice")
	admin := newTestClient(t, Target{Server: url, Token: adminSecret})
	tenant := newTestClient(t, Target{Server: url, Token: tenantSecret})
	local := newTestClient(t, Target{Socket: overSocket(t, s, 0)})
	ctx := t.Context()

	_, _ = admin.Spawn(ctx, tenement.InstanceID{Service: "api", Name: "new"}, SpawnOptions{})
	_ = local.Start(ctx, alice)
	_ = local.Stop(ctx, tenement.InstanceID{Service: "api", Name: "nobody"})
	_ = local.Delete(ctx, alice, true)
	_ = local.SetWeight(ctx, bob, 7)
	_ = local.SetWeight(ctx, bob, -1)
	_ = local.Deploy(ctx, bob, 100, time.Second)
	_ = local.Route(ctx, "api", "alice", "bob")
	created, err := local.CreateToken(ctx, TokenOptions{Name: "ci", Scope: tenement.TenantScope("alice"), Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	_ = local.RevokeToken(ctx, created.ID)
	_ = tenant.Restart(ctx, alice)
	_ = tenant.Suspend(ctx, bob)
	_ = newTestClient(t, Target{Server: url}).Resume(ctx, alice) // a stranger
	_, _ = admin.Instance(ctx, bob)                              // no change

	_, _ = newTestClient(t, Target{Server: url, Token: "ten_guess"}).Instance(ctx, alice)
	_ = newTestClient(t, Target{Socket: overSocket(t, s, 424242)}).Delete(ctx, bob, true)

	a, u := "token:"+adminSecret[4:10], "token:"+tenantSecret[4:10]
	want := []tenement.Event{
		{Actor: a, Action: "spawn", Target: "api:new", Outcome: "ok"},
		{Actor: "local:0", Action: "start", Target: "api:alice", Outcome: "ok"},
		{Actor: "local:0", Action: "stop", Target: "api:nobody", Outcome: "not_found", Detail: "find api:nobody: no such instance"},
		{Actor: "local:0", Action: "delete", Target: "api:alice", Outcome: "ok", Detail: "purge"},
		{Actor: "local:0", Action: "weight", Target: "api:bob", Outcome: "ok", Detail: "weight 7"},
		{Actor: "local:0", Action: "weight", Target: "api:bob", Outcome: "invalid", Detail: "read request: the request does not fit the route"},
		{Actor: "local:0", Action: "deploy", Target: "api:bob", Outcome: "ok", Detail: "weight 100"},
		{Actor: "local:0", Action: "route", Target: "api:bob", Outcome: "ok", Detail: "from api:alice"},
		{Actor: "local:0", Action: "token-create", Target: created.ID, Outcome: "ok", Detail: "tenant alice ci"},
		{Actor: "local:0", Action: "token-revoke", Target: created.ID, Outcome: "ok"},
		{Actor: u, Action: "restart", Target: "api:alice", Outcome: "forbidden", Detail: "End an instance's process and start the next: a token of the scope tenant alice may not do this"},
		{Actor: u, Action: "suspend", Target: "api:bob", Outcome: "not_found", Detail: "find api:bob: no such instance"},
		{Actor: "stranger", Action: "resume", Target: "api:alice", Outcome: "unauthenticated", Detail: "authenticate: no token was sent"},
		{Actor: "stranger", Action: "authenticate", Target: "api:alice", Outcome: "unauthenticated", Detail: "read token: this is not a token"},
		{Actor: "stranger", Action: "delete", Target: "api:bob", Outcome: "unauthenticated", Detail: "authenticate: no token was sent"},
	}
	for i, atSocket := range []bool{false, true, true, true, true, true, true, true, true, true, false, false, false, false, true} {
		if !atSocket {
			want[i].From = "127.0.0.1"
		}
	}
	got := b.recorded()
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(tenement.Event{}, "ID", "At")); diff != "" {
		t.Errorf("audit log (-want +got):\n%s", diff)
	}
	for _, e := range got {
		if e.At.IsZero() {
			t.Errorf("%+v has no time", e)
		}
	}
}

func TestFaultsOfOursStayInside(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	b.fail = &tenement.Error{Code: tenement.CodeInternal, Op: "read state.db", Err: errors.New("disk I/O error"), Hint: "look at /secret"}
	var log bytes.Buffer
	s := NewServer(Options{Backend: b, Log: slog.New(slog.NewTextHandler(&log, nil))})
	for _, row := range []struct {
		tenant string
		sees   bool
	}{{"alice", false}, {"", true}} {
		log.Reset()
		req := httptest.NewRequest(http.MethodGet, "/api/instances/api:alice", nil)
		req.Header.Set("Authorization", "Bearer "+b.secret(t, row.tenant))
		w := httptest.NewRecorder()
		s.ServeHTTP(w, req)
		if w.Code != http.StatusInternalServerError {
			t.Errorf("status %d", w.Code)
		}
		if got := strings.Contains(w.Body.String(), "disk") || strings.Contains(w.Body.String(), "secret"); got != row.sees {
			t.Errorf("tenant %q is told %s", row.tenant, w.Body)
		}
		if n := strings.Count(log.String(), "disk I/O error"); n != 1 {
			t.Errorf("logged %d times: %s", n, &log)
		}
	}
}

// post sends body to path as an admin, with the header lines given.
func post(t *testing.T, s *Server, b *fakeBackend, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+b.secret(t, ""))
	req.Header.Set("Content-Type", "application/json")
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, req)
	return w
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	s := newTestServer(t, b)
	good := `{"process":"api","id":"carol"}`
	for name, row := range map[string]struct {
		path, body, header string
		status             int
		says               string
	}{
		"unknown member":   {body: `{"process":"api","id":"carol","wieght":1}`, status: 400, says: "body.wieght"},
		"missing member":   {body: `{"process":"api"}`, status: 400, says: "id"},
		"wrong type":       {body: `{"process":"api","id":7}`, status: 400, says: "body.id"},
		"out of bounds":    {body: `{"process":"api","id":"carol","weight":-1}`, status: 400, says: "body.weight"},
		"wrong name":       {body: `{"process":"api","id":"../etc"}`, status: 400, says: "not a valid instance name"},
		"smuggled colon":   {body: `{"process":"api:alice","id":"bob"}`, status: 400, says: "not a valid instance name"},
		"no JSON":          {body: `process=api`, status: 400},
		"two documents":    {body: good + good, status: 400},
		"empty":            {body: ``, status: 400, says: "required"},
		"other media type": {body: good, header: "Content-Type: text/plain", status: 415, says: "application/json"},
		"no media type":    {body: good, header: "Content-Type: ", status: 415},
		"too long":         {body: `{"process":"` + strings.Repeat("a", maxBody) + `","id":"carol"}`, status: 413, says: "longer than"},
		"another site":     {body: good, header: "Sec-Fetch-Site: cross-site", status: 403, says: "cross-origin"},
		"another origin":   {body: good, header: "Origin: http://evil.example", status: 403, says: "cross-origin"},
		"unknown query":    {path: "/api/instances/spawn?dry=1", body: good, status: 400, says: "query.dry"},
		"wrong instance":   {path: "/api/instances/apialice/start", status: 400, says: "service:id"},
		"same both ways":   {path: "/api/route", body: `{"process":"api","from":"a","to":"a"}`, status: 400, says: "same"},
	} {
		t.Run(name, func(t *testing.T) {
			path := row.path
			if path == "" {
				path = "/api/instances/spawn"
			}
			var header []string
			if row.header != "" {
				header = append(header, row.header)
			}
			w := post(t, s, b, path, row.body, header...)
			if w.Code != row.status || !strings.Contains(w.Body.String(), row.says) {
				t.Errorf("status %d, want %d and %q: %s", w.Code, row.status, row.says, w.Body)
			}
			checkProblem(t, w.Result(), w.Body.Bytes())
		})
	}
	if _, known := b.instances[tenement.InstanceID{Service: "api", Name: "carol"}]; known {
		t.Error("a refused request had an effect")
	}
}

func TestDefaultsOfRequests(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	s := newTestServer(t, b)
	ten := 10
	for _, row := range []struct {
		path, body string
		status     int
		want       any
	}{
		{"/api/instances/spawn", `{"process":"api","id":"carol"}`, 201, SpawnOptions{Wake: true}},
		{"/api/instances/spawn", `{"process":"api","id":"carol","wake":false,"weight":10}`, 200, SpawnOptions{Weight: &ten}},
		{"/api/deploy", `{"process":"api","version":"v2"}`, 204, deployAsked{tenement.InstanceID{Service: "api", Name: "v2"}, 100, time.Minute}},
		{"/api/deploy", `{"process":"api","version":"v2","weight":0,"timeout":0.5}`, 204, deployAsked{tenement.InstanceID{Service: "api", Name: "v2"}, 0, time.Second / 2}},
		{"/api/route", `{"process":"api","from":"v1","to":"v2"}`, 204, [3]string{"api", "v1", "v2"}},
	} {
		w := post(t, s, b, row.path, row.body)
		if w.Code != row.status {
			t.Errorf("%s: status %d, want %d: %s", row.body, w.Code, row.status, w.Body)
		}
		if diff := cmp.Diff(row.want, b.lastAsked(), cmp.AllowUnexported(deployAsked{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.body, diff)
		}
	}
}

func TestWrongTokensAreSlowedAndRightOnesAreNot(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	url := overTCP(t, newTestServer(t, b))
	guesser := newTestClient(t, Target{Server: url, Token: "ten_guess"})
	owner := newTestClient(t, Target{Server: url, Token: b.secret(t, "")})
	for i := range failuresAllowed + 2 {
		_, err := guesser.Tokens(t.Context())
		var e *tenement.Error
		if !errors.As(err, &e) || e.Code != tenement.CodeUnauthenticated {
			t.Fatalf("guess %d: %v", i, err)
		}
		if limited := i >= failuresAllowed; limited != (e.RetryAfter > 0) {
			t.Errorf("guess %d: to wait %v", i, e.RetryAfter)
		}
	}
	if _, err := owner.Tokens(t.Context()); err != nil {
		t.Errorf("the right token is locked out: %v", err)
	}
	if b.lastAsked() != "authenticate" || len(b.asked) != 1 {
		t.Errorf("a malformed token was looked up: %v", b.asked)
	}
}

// TestLongOperation holds what a read deadline left behind would break: net/http
// cancels a request whose connection it can no longer read.
func TestLongOperation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newFakeBackend()
		b.wait = func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Hour):
				return nil
			}
		}
		near, far := net.Pipe()
		server := &http.Server{Handler: newTestServer(t, b)}
		listener := &pipeListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
		listener.conns <- far
		go func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		}()
		c := newTestClient(t, Target{Server: "http://tenement", Token: b.secret(t, "")})
		c.http.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) { return near, nil }
		if err := c.Deploy(t.Context(), bob, 100, time.Hour); err != nil {
			t.Error(err)
		}
		c.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
}

// pipeListener accepts the connections put into it.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{} }

func FuzzSpawnBody(f *testing.F) {
	f.Add(`{"process":"api","id":"alice"}`)
	f.Add(`{"process":null,"id":[],"weight":1e99}`)
	f.Add(`{"weight":{"a":"\ud800"}}`)
	f.Fuzz(func(t *testing.T, body string) {
		b := newFakeBackend()
		w := post(t, newTestServer(t, b), b, "/api/instances/spawn", body)
		if w.Code >= http.StatusInternalServerError {
			t.Errorf("%q: status %d: %s", body, w.Code, w.Body)
		}
	})
}

package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

// TestErrorsArriveAsTheyWere sends every kind of error through server and client.
func TestErrorsArriveAsTheyWere(t *testing.T) {
	t.Parallel()
	for _, code := range []tenement.Code{
		tenement.CodeInvalid, tenement.CodeUnauthenticated, tenement.CodeForbidden, tenement.CodeNotFound,
		tenement.CodeConflict, tenement.CodeSuspended, tenement.CodeUnavailable, tenement.CodeFull,
		tenement.CodeTimeout, tenement.CodeBroken, tenement.CodeUnreachable, tenement.CodeCanceled, tenement.CodeInternal,
	} {
		t.Run(string(code), func(t *testing.T) {
			t.Parallel()
			b := newFakeBackend()
			b.fail = &tenement.Error{Code: code, Op: "start api:alice", Err: errors.New("it did not"), Hint: "try this", RetryAfter: 1500 * time.Millisecond}
			c := newTestClient(t, Target{Server: overTCP(t, newTestServer(t, b)), Token: b.secret(t, "")})
			err := c.Start(t.Context(), alice)
			var e *tenement.Error
			if !errors.As(err, &e) {
				t.Fatalf("%T: %v", err, err)
			}
			got := []any{e.Code, e.Error(), e.Hint, e.RetryAfter}
			want := []any{code, "start api:alice: it did not", "try this", 2 * time.Second}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestCalls walks the client's methods once, over the socket.
func TestCalls(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	c := newTestClient(t, Target{Socket: overSocket(t, newTestServer(t, b), -1)})
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	h, err := c.DaemonHealth(ctx)
	must(err)
	if h != (Health{Status: "ok", Version: "v1.2.3"}) {
		t.Errorf("health is %+v", h)
	}
	in, err := c.Instance(ctx, alice)
	must(err)
	want := Instance{ID: alice, State: tenement.Ready, Health: tenement.HealthHealthy, PID: 42, Reason: "/srv/secret", URL: "http://alice.api.localhost"}
	if diff := cmp.Diff(want, in); diff != "" {
		t.Errorf("instance (-want +got):\n%s", diff)
	}
	must(c.SetWeight(ctx, alice, 12))
	if b.instances[alice].Weight != 12 {
		t.Errorf("weight is %d", b.instances[alice].Weight)
	}
	must(c.Start(ctx, alice))
	must(c.Stop(ctx, alice))
	must(c.Restart(ctx, alice))
	must(c.Suspend(ctx, alice))
	must(c.Resume(ctx, alice))
	ih, err := c.InstanceHealth(ctx, alice)
	must(err)
	if ih != (InstanceHealth{ID: alice, Health: tenement.HealthDegraded, Detail: "status 500"}) {
		t.Errorf("health is %+v", ih)
	}
	st, err := c.Storage(ctx, alice)
	must(err)
	if st != (Storage{
		ID: alice, Path: "/var/lib/tenement/api/alice", UsedBytes: 4096, UsedFiles: 1,
		LimitBytes: 1 << 20, LimitFiles: 1000, Enforcement: "measured",
	}) {
		t.Errorf("storage is %+v", st)
	}
	must(c.Delete(ctx, bob, true))
	if b.lastAsked() != (deleteAsked{bob, true}) {
		t.Errorf("asked %+v", b.lastAsked())
	}
	must(c.Route(ctx, "api", "v1", "v2"))
	must(c.Deploy(ctx, bob, 5, 0))
	if b.lastAsked() != (deployAsked{bob, 5, time.Minute}) {
		t.Errorf("asked %+v", b.lastAsked())
	}
}

func TestLogOptions(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	c := newTestClient(t, Target{Socket: overSocket(t, newTestServer(t, b), -1)})
	since := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	lines, err := c.Logs(t.Context(), LogOptions{Instance: alice, Level: "stdout", Search: "hello", Since: since, Limit: 5})
	if err != nil || len(lines) != 1 || lines[0] != b.lines[0] {
		t.Errorf("lines %+v, %v", lines, err)
	}
	q, _ := b.lastAsked().(LogQuery)
	if diff := cmp.Diff(LogQuery{Instance: alice, Level: "stdout", Search: "hello", Since: since, Limit: 5}, q); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if lines, err = c.Logs(t.Context(), LogOptions{Search: "absent"}); err != nil || len(lines) != 0 {
		t.Errorf("lines %+v, %v", lines, err)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	s := newTestServer(t, b)
	admin := newTestClient(t, Target{Socket: overSocket(t, s, -1)})
	made, err := admin.CreateToken(t.Context(), TokenOptions{Name: "laptop", Scope: tenement.TenantScope("alice"), Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if made.ExpiresAt.IsZero() || made.Tenant != "alice" || made.Name != "laptop" || made.Scope != tenement.RoleTenant {
		t.Errorf("made %+v", made.Token)
	}
	tokens, err := admin.Tokens(t.Context())
	if err != nil || len(tokens) != 1 || tokens[0].ID != made.ID {
		t.Errorf("tokens %+v, %v", tokens, err)
	}
	bearer := newTestClient(t, Target{Server: overTCP(t, s), Token: made.Secret})
	if _, err := bearer.Instance(t.Context(), alice); err != nil {
		t.Errorf("the new token does not work: %v", err)
	}
	if err := admin.RevokeToken(t.Context(), made.ID); err != nil {
		t.Error(err)
	}
	if _, err := bearer.Instance(t.Context(), alice); tenement.CodeOf(err) != tenement.CodeUnauthenticated {
		t.Errorf("a revoked token: %v", err)
	}
	if err := admin.RevokeToken(t.Context(), made.ID); tenement.CodeOf(err) != tenement.CodeNotFound {
		t.Errorf("revoked twice: %v", err)
	}
}

func TestScopesOfNewTokens(t *testing.T) {
	t.Parallel()
	c := newTestClient(t, Target{Socket: overSocket(t, newTestServer(t, newFakeBackend()), -1)})
	for asked, want := range map[TokenOptions]tenement.Scope{
		{}:                                       {Role: tenement.RoleAdmin},
		{Scope: tenement.Scope{Tenant: "alice"}}: tenement.TenantScope("alice"),
		{Scope: tenement.Scope{Role: tenement.RoleReadOnly}, Name: "ci"}:      {Role: tenement.RoleReadOnly},
		{Scope: tenement.Scope{Role: tenement.RoleMetrics}}:                   {Role: tenement.RoleMetrics},
		{Scope: tenement.Scope{Role: tenement.RoleTenant}}:                    {},
		{Scope: tenement.Scope{Role: tenement.RoleReadOnly, Tenant: "alice"}}: {},
		{Scope: tenement.Scope{Role: "root"}}:                                 {},
		{Scope: tenement.TenantScope("not a name")}:                           {},
		{Scope: tenement.Scope{Role: tenement.RoleAdmin}, Name: "\x1b[2J"}:    {},
	} {
		made, err := c.CreateToken(t.Context(), asked)
		got := tenement.Scope{Role: made.Scope, Tenant: made.Tenant}
		if got != want || (err != nil) != (want == tenement.Scope{}) || err != nil && tenement.CodeOf(err) != tenement.CodeInvalid {
			t.Errorf("%+v: made %+v, %v", asked, got, err)
		}
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	c := newTestClient(t, Target{Socket: overSocket(t, newTestServer(t, b), -1)})
	var seen []string
	o := ListOptions{Limit: 2}
	for range 3 {
		page, err := c.Instances(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range page.Instances {
			seen = append(seen, in.ID.String())
		}
		if o.After = page.Next; o.After.IsZero() {
			break
		}
	}
	if diff := cmp.Diff([]string{"api:alice", "api:bob", "web:alice"}, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	awake := []tenement.State{tenement.Starting, tenement.Ready, tenement.Frozen, tenement.Draining, tenement.Stopping, tenement.Backoff, tenement.Failed}
	if _, err := c.Instances(t.Context(), ListOptions{Service: "api", Name: "bob", AwakeOnly: true, Limit: MaxInstances}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ListQuery{Service: "api", Name: "bob", States: awake, Limit: MaxInstances, Count: true}, b.lastAsked()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFiltersOfLists(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	c := newTestClient(t, Target{Socket: overSocket(t, newTestServer(t, b), -1)})
	page, err := c.Instances(t.Context(), ListOptions{Text: "Ali", States: []tenement.State{tenement.Ready, tenement.Suspended}, Limit: 1})
	if err != nil || page.Total == nil || *page.Total != 3 {
		t.Errorf("%+v, %v", page, err)
	}
	want := ListQuery{Text: "ali", States: []tenement.State{tenement.Ready, tenement.Suspended}, Limit: 1, Count: true}
	if diff := cmp.Diff(want, b.lastAsked()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if page, err = c.Instances(t.Context(), ListOptions{After: page.Next}); err != nil || page.Total != nil {
		t.Errorf("every page is counted: %+v, %v", page, err)
	}
	for _, o := range []ListOptions{{States: []tenement.State{77}}, {States: []tenement.State{tenement.Ready}, AwakeOnly: true}} {
		if _, err := c.Instances(t.Context(), o); tenement.CodeOf(err) != tenement.CodeInvalid {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	ours := overTCP(t, newTestServer(t, newFakeBackend()))
	elsewhere := overTCP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			http.Redirect(w, r, ours+"/health", http.StatusFound)
			return
		}
		io.WriteString(w, "<html>")
	}))
	for name, row := range map[string]struct {
		target Target
		hint   string
	}{
		"no socket":      {Target{Socket: filepath.Join(t.TempDir(), "none")}, hintServe},
		"closed port":    {Target{Server: "http://" + closed.Addr().String()}, hintServe},
		"another server": {Target{Server: elsewhere}, hintServer},
	} {
		c := newTestClient(t, row.target)
		_, health := c.DaemonHealth(t.Context())
		_, list := c.Tokens(t.Context())
		for _, err := range []error{health, list} {
			if tenement.CodeOf(err) != tenement.CodeUnreachable || tenement.HintOf(err) != row.hint {
				t.Errorf("%s: %v, hint %q", name, err, tenement.HintOf(err))
			}
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newTestClient(t, Target{Server: elsewhere}).Tokens(gone); tenement.CodeOf(err) != tenement.CodeCanceled {
		t.Errorf("canceled: %v", err)
	}
}

func TestServerAddresses(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"example.com", "ftp://example.com", "https://", "http://[::1", "unix:///x"} {
		if _, err := NewClient(Target{Server: server}); tenement.CodeOf(err) != tenement.CodeInvalid {
			t.Errorf("%q: %v", server, err)
		}
	}
}

package api

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"tenement"
)

// worked stands for any 2xx.
const worked = 0

// allowed is the contract: what becomes of a right request about api:alice, by scope. It
// is written down here once more, so that a route whose class is changed is noticed.
// An admin may do everything, and what is open is so to all.
type allowed struct{ readOnly, metrics, tenant, otherTenant int }

var (
	everybody = allowed{worked, worked, worked, worked}
	noReading = allowed{403, 403, 403, 403}
	lists     = allowed{worked, 403, worked, worked}
	reads     = allowed{worked, 403, worked, 404}
	steers    = allowed{403, 403, worked, 404}
	changes   = allowed{403, 403, 403, 404}
)

var contract = map[string]allowed{
	"GET /health":           everybody,
	"GET /api/openapi.json": everybody,

	"GET /api/whoami":       lists,
	"GET /api/box":          {worked, 403, 403, 403},
	"GET /api/box/timeline": {worked, 403, 403, 403},

	"GET /api/instances":                  lists,
	"POST /api/instances/spawn":           noReading,
	"GET " + instancePath:                 reads,
	"DELETE " + instancePath:              changes,
	"GET " + instancePath + "/health":     reads,
	"GET " + instancePath + "/storage":    reads,
	"GET " + instancePath + "/settings":   reads,
	"GET " + instancePath + "/timeline":   reads,
	"PATCH " + instancePath + "/settings": changes,
	"POST " + instancePath + "/exec":      changes,
	"POST " + instancePath + "/run":       changes,
	"POST " + instancePath + "/start":     steers,
	"POST " + instancePath + "/stop":      steers,
	"POST " + instancePath + "/restart":   changes,
	"POST " + instancePath + "/suspend":   changes,
	"POST " + instancePath + "/resume":    changes,
	"PUT " + instancePath + "/weight":     changes,

	"POST /api/deploy":        noReading,
	"POST /api/route":         noReading,
	"POST /api/reload":        noReading,
	"POST /api/upgrade":       noReading,
	"GET /api/profile/{kind}": noReading,

	"GET /api/logs":        reads,
	"GET /api/logs/stream": reads,

	"GET /api/alerts":       {worked, 403, 403, 403},
	"POST /api/alerts/test": noReading,

	"GET /metrics":   {worked, worked, 403, 403},
	"GET /api/wakes": reads,
	"GET /api/usage": reads,

	"GET /api/usage/totals": reads,

	"GET /api/events":        reads,
	"GET /api/events/stream": reads,

	"GET /api/tokens":            {worked, 403, 403, 403},
	"POST /api/tokens":           noReading,
	"DELETE /api/tokens/{token}": noReading,
}

// caller is one kind of sender.
type caller struct {
	name   string
	client *http.Client
	base   string
	header string            // Authorization
	want   func(allowed) int // not asked about what is open
}

// TestEveryRouteForEveryCaller is the route table of the contract: nobody gets more
// than it says.
func TestEveryRouteForEveryCaller(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	s := newTestServer(t, b)
	for _, c := range callers(t, b, s) {
		for _, r := range routes {
			row, known := contract[r.method+" "+r.path]
			if !known {
				t.Fatalf("%s %s has no line in the contract", r.method, r.path)
			}
			t.Run(c.name+"/"+r.method+" "+r.path, func(t *testing.T) {
				s.forgetFailures()
				want := worked
				if row != everybody {
					want = c.want(row)
				}
				resp, body := c.send(t, b, r)
				if want == worked && (resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusSwitchingProtocols) {
					return
				}
				if resp.StatusCode != want {
					t.Fatalf("status %d, want %d (0 is any 2xx): %s", resp.StatusCode, want, body)
				}
				checkProblem(t, resp, body)
			})
		}
	}
}

// TestMeasuringAdmits is the class of what monitoring reads.
func TestMeasuringAdmits(t *testing.T) {
	t.Parallel()
	r := route{method: http.MethodGet, path: "/metrics", access: measuring}
	for _, role := range append([]tenement.Role{""}, tenement.Roles...) {
		err := r.admits(tenement.Scope{Role: role}, tenement.InstanceID{})
		if want := role != "" && role != tenement.RoleTenant; (err == nil) != want {
			t.Errorf("role %q: %v", role, err)
		}
	}
}

// forgetFailures keeps one sender's wrong tokens from being another's.
func (s *Server) forgetFailures() {
	s.failures.mu.Lock()
	defer s.failures.mu.Unlock()
	clear(s.failures.rows)
}

// callers are all kinds of senders, each with what it may do. Every request is about
// api:alice.
func callers(t *testing.T, b *fakeBackend, s *Server) []caller {
	tcp, plain := overTCP(t, s), &http.Client{}
	unprivileged := overSocket(t, s, 424242)
	unknown := func(allowed) int { return 401 }
	everything := func(allowed) int { return worked }
	stranger, _ := NewToken()
	role := func(role tenement.Role) string {
		return "Bearer " + b.secretFor(t, tenement.Token{Scope: tenement.Scope{Role: role}})
	}
	expired := tenement.Token{Scope: tenement.Scope{Role: tenement.RoleAdmin}, ExpiresAt: time.Now()}
	return []caller{
		{"no token", plain, tcp, "", unknown},
		{"garbage", plain, tcp, "Bearer let-me-in", unknown},
		{"other scheme", plain, tcp, "Basic YTpi", unknown},
		{"unknown token", plain, tcp, "Bearer " + stranger, unknown},
		{"expired admin", plain, tcp, "Bearer " + b.secretFor(t, expired), unknown},
		{"admin", plain, tcp, "bearer " + b.secret(t, ""), everything},
		{"read-only", plain, tcp, role(tenement.RoleReadOnly), func(a allowed) int { return a.readOnly }},
		{"metrics", plain, tcp, role(tenement.RoleMetrics), func(a allowed) int { return a.metrics }},
		{"no scope", plain, tcp, role(""), func(allowed) int { return 403 }},
		{"tenant's own", plain, tcp, "Bearer " + b.secret(t, "alice"), func(a allowed) int { return a.tenant }},
		{"other tenant", plain, tcp, "Bearer " + b.secret(t, "bob"), func(a allowed) int { return a.otherTenant }},
		{"local socket", socketClient(t, overSocket(t, s, -1)), "http://tenement", "", everything},
		{"local root", socketClient(t, overSocket(t, s, 0)), "http://tenement", "", everything},
		{"local other user", socketClient(t, unprivileged), "http://tenement", "", unknown},
		{"local other user with a token", socketClient(t, unprivileged), "http://tenement", "Bearer " + b.secret(t, ""), everything},
		{"local root with garbage", socketClient(t, overSocket(t, s, 0)), "http://tenement", "Bearer x", unknown},
	}
}

func socketClient(t *testing.T, path string) *http.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// bodies are right requests for the routes that take one.
var bodies = map[string]string{
	"/api/instances/spawn":                `{"process":"api","id":"alice"}`,
	instancePath + "/weight":              `{"weight":10}`,
	"PATCH " + instancePath + "/settings": `{"env":{"A":null}}`,
	instancePath + "/exec":                `{"command":["true"]}`,
	instancePath + "/run":                 `{"command":["true"]}`,
	"/api/deploy":                         `{"process":"api","version":"alice"}`,
	"/api/reload":                         `{"restart":true}`,
	"/api/route":                          `{"process":"api","from":"bob","to":"alice"}`,
	"POST /api/tokens":                    `{}`,
}

// send makes a right request about api:alice for r and brings back what it may have removed.
func (c caller) send(t *testing.T, b *fakeBackend, r route) (*http.Response, []byte) {
	t.Helper()
	query := ""
	if about := strings.Split(r.path, "/"); len(about) > 2 && slices.Contains([]string{"logs", "events", "wakes", "usage"}, about[2]) {
		query = "?instance=" + alice.String()
	}
	return c.sendWith(t, b, r, query)
}

func (c caller) sendWith(t *testing.T, b *fakeBackend, r route, query string) (*http.Response, []byte) {
	t.Helper()
	token, _, err := b.CreateToken(t.Context(), tenement.Token{Scope: tenement.TenantScope("nobody")})
	if err != nil {
		t.Fatal(err)
	}
	path := strings.NewReplacer("{instance}", alice.String(), "{token}", token.ID, "{kind}", "heap").Replace(r.path) + query
	body := bodies[r.path]
	if body == "" {
		body = bodies[r.method+" "+r.path]
	}
	req, err := http.NewRequestWithContext(t.Context(), r.method, c.base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(r.path, "/exec") || strings.HasSuffix(r.path, "/run") {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", execProtocol)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.header != "" {
		req.Header.Set("Authorization", c.header)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, nil
	}
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control is %q", resp.Header.Get("Cache-Control"))
	}
	return resp, answer
}

// checkProblem checks what every refusal has.
func checkProblem(t *testing.T, resp *http.Response, body []byte) {
	t.Helper()
	if got := resp.Header.Get("Content-Type"); got != problemType {
		t.Errorf("Content-Type is %q", got)
	}
	var p Problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if p.Status != resp.StatusCode || p.Code == "" || p.Title == "" || p.Detail == "" {
		t.Errorf("the problem document lacks something: %s", body)
	}
	if resp.StatusCode == 401 && !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Bearer") {
		t.Errorf("WWW-Authenticate is %q", resp.Header.Get("WWW-Authenticate"))
	}
}

// TestChangesAreRecorded keeps the table itself from going wrong: what changes something,
// and all else that only admins may, is in the audit log.
func TestChangesAreRecorded(t *testing.T) {
	t.Parallel()
	for _, r := range routes {
		changes := r.method != http.MethodGet || r.access == adminOnly || r.access == steering
		if recorded := r.action != ""; recorded != changes {
			t.Errorf("%s %s: access %d, action %q", r.method, r.path, r.access, r.action)
		}
	}
}

func TestNothingElseIsServed(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	c := caller{client: &http.Client{}, base: overTCP(t, newTestServer(t, b)), header: "Bearer " + b.secret(t, "")}
	for _, path := range []string{
		"/", "/metrics/", "/docs", "/openapi.json", "/schemas/Instance.json", "/api/openapi.yaml", "/api/events/",
		"/api/logs/stream/", "/api", "/api/instances/", "/api/instances/api:alice/", "/api/instances/api:alice/start/x",
	} {
		resp, body := c.send(t, b, route{method: "GET", path: path})
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: status %d", path, resp.StatusCode)
			continue
		}
		checkProblem(t, resp, body)
	}
	resp, body := c.send(t, b, route{method: "PATCH", path: "/api/instances"})
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") == "" {
		t.Errorf("PATCH: status %d, Allow %q", resp.StatusCode, resp.Header.Get("Allow"))
	}
	checkProblem(t, resp, body)
}

// TestTenantSeesNothingOfOthers asks every route without naming an instance where it need
// not be named, streams included.
func TestTenantSeesNothingOfOthers(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	c := caller{client: &http.Client{}, base: overTCP(t, newTestServer(t, b)), header: "Bearer " + b.secret(t, "bob")}
	for _, r := range routes {
		resp, body := c.sendWith(t, b, r, "")
		if contract[r.method+" "+r.path] == everybody || resp.StatusCode/100 != 2 {
			continue
		}
		if strings.Contains(string(body), "alice") || !strings.Contains(string(body), "bob") {
			t.Errorf("%s %s shows %s", r.method, r.path, body)
		}
	}
}

func TestTenantSeesOnlyItsOwn(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	url := overTCP(t, newTestServer(t, b))
	tenant := newTestClient(t, Target{Server: url, Token: b.secret(t, "alice")})

	page, err := tenant.Instances(t.Context(), ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(page.Instances) != 2 {
		t.Errorf("sees %d instances, want api:alice and web:alice", len(page.Instances))
	}
	for _, in := range page.Instances {
		if in.ID.Name != "alice" || in.Reason != "" {
			t.Errorf("sees %+v", in)
		}
	}
	if q, _ := b.lastAsked().(ListQuery); q.Name != "alice" {
		t.Errorf("asked for %+v, which another's instances could fill", q)
	}
	if page, err = tenant.Instances(t.Context(), ListOptions{Name: "bob"}); err != nil || len(page.Instances) != 0 {
		t.Errorf("asked for bob: %+v, %v", page, err)
	}
	lines, err := tenant.Logs(t.Context(), LogOptions{})
	if err != nil || len(lines) != 2 {
		t.Errorf("sees %d lines, %v", len(lines), err)
	}
	for _, l := range lines {
		if l.Instance.Name != "alice" {
			t.Errorf("sees the line %+v", l)
		}
	}
	if h, err := tenant.DaemonHealth(t.Context()); err != nil || h.Version != "" {
		t.Errorf("sees %+v, %v", h, err)
	}
	// What is another's and what is nobody's look alike.
	_, others := tenant.Instance(t.Context(), bob)
	_, nobodys := tenant.Instance(t.Context(), tenement.InstanceID{Service: "api", Name: "bobby"})
	if strings.ReplaceAll(others.Error(), "bob", "bobby") != nobodys.Error() {
		t.Errorf("%q and %q tell them apart", others, nobodys)
	}
}

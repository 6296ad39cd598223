package daemon_test

import (
	"context"
	"net/http"
	"os"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/runtime/runtimetest"
)

// post asks the management API at the front, as a proxy does that is trusted.
func (s *site) post(path, secret, from string) int {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://localhost"+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+secret)
	request.Header.Set("X-Forwarded-For", from)
	answer, err := s.http.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	return answer.StatusCode
}

// TestEvents is the audit log from the request to the answer: of all, of one tenant, as it
// happens, and across a restart of the daemon.
func TestEvents(t *testing.T) {
	t.Parallel()
	text := settings + "trusted_proxies = ['127.0.0.1']\n" + service("api", "")
	s := build(t, text)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	heard, away := make(chan api.Event, 100), make(chan error, 10)
	go func() {
		away <- s.api.FollowEvents(ctx, api.EventOptions{Limit: 1}, func(err error) { away <- err }, func(e api.Event) error {
			heard <- e
			return nil
		})
	}()
	s.spawn("api:alice", "api:bob")
	made, err := s.api.CreateToken(t.Context(), api.TokenOptions{Scope: tenement.TenantScope("alice")})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"alice/start": 204, "alice/suspend": 403, "bob/stop": 404} {
		if got := s.post("/api/instances/api:"+path, made.Secret, "203.0.113.9"); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	if got := s.post("/api/instances/api:bob/stop", "guess", "198.51.100.1"); got != 401 {
		t.Errorf("a stranger: %d", got)
	}
	seen := map[string]int{}
	for range 7 {
		seen[runtimetest.Within(t, "an event", heard).Outcome]++
	}
	if diff := cmp.Diff(map[string]int{"ok": 4, "forbidden": 1, "not_found": 1, "unauthenticated": 1}, seen); diff != "" {
		t.Errorf("as it happened (-want +got):\n%s", diff)
	}
	s.stop()
	if err := runtimetest.Within(t, "the loss of the connection", away); tenement.CodeOf(err) != tenement.CodeUnreachable {
		t.Errorf("lost: %v", err)
	}
	cancel()
	if err := runtimetest.Within(t, "the end of who followed", away); tenement.CodeOf(err) != tenement.CodeCanceled {
		t.Errorf("followed until: %v", err)
	}

	s = buildIn(t, s.dir, text)
	page, err := s.api.Events(t.Context(), api.EventOptions{Instance: id(t, "api:bob")})
	if err != nil {
		t.Fatal(err)
	}
	want := []api.Event{
		{Actor: "local:" + strconv.Itoa(os.Getuid()), Action: "spawn", Target: "api:bob", Outcome: "ok"},
		{Actor: "token:" + made.ID, From: "203.0.113.9", Action: "stop", Target: "api:bob", Outcome: "not_found"},
		{Actor: "stranger", From: "198.51.100.1", Action: "stop", Target: "api:bob", Outcome: "unauthenticated"},
	}
	if diff := cmp.Diff(want, page.Events, cmpopts.IgnoreFields(api.Event{}, "ID", "At", "Detail")); diff != "" {
		t.Errorf("about bob (-want +got):\n%s", diff)
	}
}

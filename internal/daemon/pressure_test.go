package daemon_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/runtime/runtimetest"
)

// TestMaxAwake: of three customers' programs two run at a time. Who is in use stays.
func TestMaxAwake(t *testing.T) {
	t.Parallel()
	s := build(t, strings.Replace(settings, "[settings]", "[settings]\nmax_awake = 2", 1)+service("api", ""))
	s.spawn("api:alice", "api:bob", "api:carol")
	alice := s.pid("alice.api.localhost")
	bob := s.pid("bob.api.localhost")
	if again := s.pid("alice.api.localhost"); again != alice {
		t.Errorf("alice was started again")
	}
	s.pid("carol.api.localhost")
	gone(t, bob)
	if in := s.instance("api:bob"); in.State != tenement.Asleep || !strings.Contains(in.Reason, "max_awake = 2") {
		t.Errorf("bob is %s because %q", in.State, in.Reason)
	}

	a, c := s.stream("alice.api.localhost"), s.stream("carol.api.localhost")
	body := s.wants("http://bob.api.localhost/", http.StatusServiceUnavailable)
	if !strings.Contains(body, string(tenement.CodeFull)) {
		t.Errorf("bob's client is told %q", body)
	}
	if _, err := s.api.Spawn(t.Context(), id(t, "api:bob"), api.SpawnOptions{Wake: true}); tenement.CodeOf(err) != tenement.CodeFull || !strings.Contains(tenement.HintOf(err), "ten reload") {
		t.Errorf("the operator is told %v, hint %q", err, tenement.HintOf(err))
	}
	a()
	s.pid("bob.api.localhost")
	gone(t, alice)
	c()

	s.text.Store(settings + service("api", ""))
	if _, err := s.api.Reload(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	s.pid("alice.api.localhost")
	for _, name := range []string{"api:alice", "api:bob", "api:carol"} {
		if st := s.instance(name).State; st != tenement.Ready {
			t.Errorf("%s is %s", name, st)
		}
	}
}

// stream holds a lease on host's instance until the func that it returns is called, which
// waits for the lease to be returned.
func (s *site) stream(host string) (end func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/sse?every=100ms", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	answer, err := s.http.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	name, service, _ := strings.Cut(strings.TrimSuffix(host, ".localhost"), ".")
	return func() {
		cancel()
		_ = answer.Body.Close()
		runtimetest.Eventually(s.t, "the stream of "+host+" has ended", func() bool { return s.instance(service+":"+name).Leases == 0 })
	}
}

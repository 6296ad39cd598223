package daemon_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"tenement"
)

// TestAskedAsleep: who watches over a sleeping instance learns that it sleeps and since when
// nothing is known of it, whichever daemon answers, and nobody is woken by it.
func TestAskedAsleep(t *testing.T) {
	t.Parallel()
	dir, text := shortDir(t), settings+service("api", "health = '/health'")
	s := buildIn(t, dir, text)
	s.spawn("api:alice")
	const health = "http://alice.api.localhost/health"
	if said := s.saysAsleep(health); said != nil {
		t.Errorf("it was never started, and was well at %v", said)
	}
	s.wants("http://alice.api.localhost/favicon.ico", http.StatusNotFound)
	s.wants("http://bob.api.localhost/health", http.StatusNotFound)
	if state := s.instance("api:alice").State; state != tenement.Asleep {
		t.Fatalf("it is %s", state)
	}

	begun := time.Now().Truncate(time.Second)
	s.pid("alice.api.localhost")
	if got := s.get(health); got != "ok\n" {
		t.Errorf("awake, it says %q", got)
	}
	if err := s.api.Stop(t.Context(), id(t, "api:alice")); err != nil {
		t.Fatal(err)
	}
	said := s.saysAsleep(health)
	if said == nil || said.Before(begun) || said.After(time.Now()) {
		t.Errorf("it was well at %v, and was started at %v", said, begun)
	}
	s.stop()

	s = buildIn(t, dir, text)
	if again := s.saysAsleep(health); said == nil || again == nil || !again.Equal(*said) {
		t.Errorf("another daemon says %v, and not %v", again, said)
	}
	if err := s.api.Suspend(t.Context(), id(t, "api:alice")); err != nil {
		t.Fatal(err)
	}
	s.wants(health, http.StatusServiceUnavailable)
}

// saysAsleep wants url to be answered in the place of a sleeping instance, and gives the
// time that the answer has.
func (s *site) saysAsleep(url string) *time.Time {
	s.t.Helper()
	var said struct {
		Status    string     `json:"status"`
		HealthyAt *time.Time `json:"last_healthy_at"`
	}
	body := s.get(url)
	if err := json.Unmarshal([]byte(body), &said); err != nil || said.Status != "asleep" {
		s.t.Fatalf("%s says %q", url, body)
	}
	return said.HealthyAt
}

// TestRulesNeedNoRestart: who may wake an instance concerns no process.
func TestRulesNeedNoRestart(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", "health = '/health'"))
	s.spawn("api:alice")
	s.pid("alice.api.localhost")
	s.text.Store(settings + service("api", "health = '/health'\nwake.health = true"))
	result, err := s.api.Reload(t.Context(), false)
	if err != nil || len(result.Changed) != 1 || len(result.Outdated) != 0 {
		t.Errorf("reload: %+v, %v", result, err)
	}
	if err := s.api.Stop(t.Context(), id(t, "api:alice")); err != nil {
		t.Fatal(err)
	}
	if got := s.get("http://alice.api.localhost/health"); got != "ok\n" {
		t.Errorf("it is to wake, and says %q", got)
	}
}

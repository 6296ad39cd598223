package daemon_test

import (
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/runtime/runtimetest"
)

var alice = tenement.InstanceID{Service: "api", Name: "alice"}

// reload puts text in force.
func (s *site) reload(text string, restart bool) api.Reloaded {
	s.t.Helper()
	s.text.Store(text)
	r, err := s.api.Reload(s.t.Context(), restart)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func wantReloaded(t *testing.T, got, want api.Reloaded) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReloadLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	before := settings + service("api", "") + service("old", "") + service("same", "")
	s := build(t, before)
	for _, id := range []string{"api:alice", "old:alice", "same:alice"} {
		s.spawn(id)
	}
	pids := map[string]int{}
	for _, name := range []string{"api", "old", "same"} {
		pids[name] = s.pid("alice." + name + ".localhost")
	}
	after := strings.Replace(settings, "[settings]", "[settings]\ndomain = 'example.com'", 1) +
		service("api", "idle_timeout = 77") + service("same", "") + service("new", "create = 'on-request'")
	wantReloaded(t, s.reload(after, false), api.Reloaded{
		Added: []string{"new"}, Removed: []string{"old"}, Changed: []string{"api"}, Outdated: []tenement.InstanceID{alice},
	})
	for _, name := range []string{"api", "same"} {
		if pid := s.pid("alice." + name + ".example.com"); pid != pids[name] {
			t.Errorf("%s was restarted", name)
		}
	}
	gone(t, pids["old"])
	s.wants("http://alice.old.example.com/", http.StatusNotFound)
	s.wants("http://alice.api.localhost/", http.StatusNotFound)
	s.get("http://bob.new.example.com/")

	wantReloaded(t, s.reload(after, true), api.Reloaded{Restarted: []tenement.InstanceID{alice}})
	if pid := s.pid("alice.api.example.com"); pid == pids["api"] {
		t.Error("api was not restarted")
	}
	if pid := s.pid("alice.same.example.com"); pid != pids["same"] {
		t.Error("same was restarted")
	}
}

// TestReloadOfALimit: what runs keeps its own until it is restarted.
func TestReloadOfALimit(t *testing.T) {
	t.Parallel()
	limited := func(files string) string { return settings + service("api", "open_files_limit = "+files) }
	s := build(t, limited("64"))
	s.spawn("api:alice")
	limit := func() string {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(s.pid("alice.api.localhost")) + "/limits")
		if err != nil {
			t.Skip("needs /proc: Linux only")
		}
		_, rest, _ := strings.Cut(string(text), "Max open files")
		return strings.Fields(rest)[0]
	}
	if got := limit(); got != "64" {
		t.Fatalf("a limit of %s", got)
	}
	wantReloaded(t, s.reload(limited("72"), false), api.Reloaded{Changed: []string{"api"}, Outdated: []tenement.InstanceID{alice}})
	if got := limit(); got != "64" {
		t.Errorf("what runs was given a limit of %s", got)
	}
	wantReloaded(t, s.reload(limited("72"), true), api.Reloaded{Restarted: []tenement.InstanceID{alice}})
	if got := limit(); got != "72" {
		t.Errorf("restarted with a limit of %s", got)
	}
}

func TestReloadIsAllOrNothing(t *testing.T) {
	t.Parallel()
	before := settings + service("api", "")
	s := build(t, before)
	s.spawn("api:alice")
	for name, c := range map[string]struct {
		text string
		code tenement.Code
		says string
	}{
		"mistakes":     {settings + service("web", "idle_timeout = 'x'\nunknown = 1"), tenement.CodeInvalid, "2 mistakes"},
		"fixed too":    {settings + "admin_listen = '127.0.0.1:1'\n" + service("web", ""), tenement.CodeConflict, "admin_listen"},
		"fixed":        {strings.Replace(settings, "127.0.0.1:0", "127.0.0.1:1", 1) + service("web", ""), tenement.CodeConflict, "listen"},
		"max_starting": {strings.Replace(settings, "[settings]", "[settings]\nmax_starting = 9", 1) + service("web", ""), tenement.CodeConflict, "max_starting"},
	} {
		s.text.Store(c.text)
		_, err := s.api.Reload(t.Context(), true)
		if tenement.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.get("http://alice.api.localhost/")
	s.wants("http://alice.web.localhost/", http.StatusNotFound)
}

func TestReloadRestartsUntilOneDoesNotComeUp(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	s.spawn("api:alice")
	s.spawn("api:bob")
	bob := s.pid("bob.api.localhost")
	s.pid("alice.api.localhost")
	s.text.Store(settings + "[service.api]\ncommand = '/no/such/program'\n")
	if _, err := s.api.Reload(t.Context(), true); tenement.CodeOf(err) != tenement.CodeUnavailable || !strings.Contains(err.Error(), "api:alice") {
		t.Errorf("error %v", err)
	}
	if pid := s.pid("bob.api.localhost"); pid != bob {
		t.Error("the next one was restarted as well")
	}
}

// TestStopDuringRestarts: nobody waits for restarts that the daemon's end has overtaken.
func TestStopDuringRestarts(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	s.spawn("api:alice")
	old := s.pid("alice.api.localhost")
	s.text.Store(settings + service("api", "startup_timeout = 3600\nwake_timeout = 3600", "-boot=1h"))
	failed := make(chan error, 1)
	go func() {
		_, err := s.api.Reload(t.Context(), true)
		failed <- err
	}()
	gone(t, old)
	s.until("api:alice", tenement.Starting)
	s.stop()
	if err := runtimetest.Within(t, "answer", failed); tenement.CodeOf(err) != tenement.CodeUnavailable {
		t.Errorf("error %v", err)
	}
}

package daemon_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tenement"
	"tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
)

func requireSandbox(t *testing.T) {
	t.Helper()
	_, err := runtime.FindRunsc()
	switch {
	case err == nil && os.Getuid() == 0:
	case slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), "runsc"):
		t.Fatal("not root, or ", err)
	default:
		t.Skipf("not root, or %v: run tools/runsc.sh, and put the directory that it prints into PATH", err)
	}
}

// TestSandboxes takes one instance through its life in a sandbox, across daemons.
func TestSandboxes(t *testing.T) {
	t.Parallel()
	requireSandbox(t)
	dir := shortDir(t)
	text := settings + service("api", "isolation = 'sandbox'\nstartup_timeout = 60")
	s := buildWith(t, dir, text, true)
	s.spawn("api:alice")
	if got := s.get("http://alice.api.localhost/"); got != "api:alice" {
		t.Errorf("answered %q", got)
	}
	pid := s.instance("api:alice").PID
	s.stop()
	s = buildIn(t, dir, text)
	if now := s.instance("api:alice").PID; now != pid || s.get("http://alice.api.localhost/") != "api:alice" {
		t.Errorf("the next daemon has process %d, was %d", now, pid)
	}
	if err := s.api.Stop(t.Context(), id(t, "api:alice")); err != nil {
		t.Fatal(err)
	}
	gone(t, pid)
	if _, err := os.Stat(filepath.Join(dir, "api", "alice", "terminated")); err != nil {
		t.Errorf("the program did not see SIGTERM: %v", err)
	}
	if got := s.wants("http://alice.api.localhost/exit?code=7", http.StatusBadGateway); got == "" {
		t.Error("no word about the end of the program")
	}
	// The crash may be noticed only after the answer.
	runtimetest.Eventually(t, "api:alice is ready again, with nothing to say", func() bool {
		now := s.instance("api:alice")
		return now.State == tenement.Ready && now.Reason == ""
	})
	s.stop()
	left, err := filepath.Glob("/run/tenement/*/api.alice.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, bundle := range left {
		if config, err := os.ReadFile(filepath.Join(bundle, "config.json")); err == nil && strings.Contains(string(config), strconv.Quote(filepath.Join(dir, "api", "alice"))) {
			t.Errorf("%s is left", bundle)
		}
	}
}

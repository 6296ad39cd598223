package daemon_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/config"
	"tenement/internal/daemon"
)

func TestWeightsSurviveTheDaemon(t *testing.T) {
	t.Parallel()
	text := settings + service("api", "")
	first := build(t, text)
	first.spawn("api:v1", "api:v2", "api:customer")
	first.wants("http://api.localhost/", http.StatusServiceUnavailable)
	if err := first.api.SetWeight(t.Context(), id(t, "api:v2"), 100); err != nil {
		t.Fatal(err)
	}
	first.get("http://customer.api.localhost/")
	for range 20 {
		if got := first.get("http://api.localhost/"); got != "api:v2" {
			t.Fatalf("%s answered", got)
		}
	}
	if err := first.api.Suspend(t.Context(), id(t, "api:v1")); err != nil {
		t.Fatal(err)
	}
	first.stop()

	second := buildIn(t, first.dir, text)
	if got := second.get("http://api.localhost/"); got != "api:v2" {
		t.Errorf("%s answered", got)
	}
	if i := second.instance("api:v2"); i.Weight != 100 {
		t.Errorf("weight %d", i.Weight)
	}
	second.wants("http://v1.api.localhost/", http.StatusServiceUnavailable)
	if i := second.instance("api:v1"); i.State != tenement.Suspended {
		t.Errorf("v1 is %s", i.State)
	}
}

func TestDeployAndRoute(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", `health = "/health"`))
	v1, v2 := id(t, "api:v1"), id(t, "api:v2")
	if err := s.api.Deploy(t.Context(), v1, 100, 0); err != nil {
		t.Fatal(err)
	}
	if got := s.get("http://api.localhost/"); got != "api:v1" {
		t.Errorf("%s answered", got)
	}
	if err := s.api.Deploy(t.Context(), v2, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.api.Route(t.Context(), "api", "v1", "v2"); err != nil {
		t.Fatal(err)
	}
	if got := s.get("http://api.localhost/"); got != "api:v2" {
		t.Errorf("%s answered", got)
	}
	if one, two := s.instance("api:v1").Weight, s.instance("api:v2").Weight; one != 0 || two != 100 {
		t.Errorf("weights %d and %d", one, two)
	}
	if err := s.api.Route(t.Context(), "api", "v1", "v2"); tenement.CodeOf(err) != tenement.CodeConflict {
		t.Errorf("again: %v", err)
	}
	if err := s.api.Delete(t.Context(), v2, false); err != nil {
		t.Fatal(err)
	}
	s.wants("http://api.localhost/", http.StatusServiceUnavailable)
}

func TestFailedDeployChangesNoWeight(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", "", "-exit=1"))
	err := s.api.Deploy(t.Context(), id(t, "api:v1"), 100, 0)
	if tenement.CodeOf(err) != tenement.CodeUnavailable || tenement.HintOf(err) == "" {
		t.Errorf("error %v, hint %q", err, tenement.HintOf(err))
	}
	if i := s.instance("api:v1"); i.Weight != 0 {
		t.Errorf("weight %d", i.Weight)
	}
	lines, err := s.api.Logs(t.Context(), api.LogOptions{Instance: id(t, "api:v1")})
	if err != nil || len(lines) == 0 || !strings.Contains(lines[0].Text, "exiting with 1") {
		t.Errorf("log %v, %v", lines, err)
	}
}

func TestStrangeHosts(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/")
	before := tree(t, s.dir)
	for host, status := range map[string]int{
		"alice.api.localhost":                       200,
		"ALICE.API.LOCALHOST":                       200,
		"alice.api.localhost.":                      200,
		"alice.api.localhost:1":                     200,
		"alice.api.localhost.:65535":                200,
		"bob.api.localhost":                         404,
		"alice.other.localhost":                     404,
		"x.alice.api.localhost":                     404,
		"alice.api.localhost..":                     404,
		".alice.api.localhost":                      404,
		"alice.api.example.com":                     404,
		"..api.localhost":                           404,
		"..%2f..api.localhost":                      404,
		"alice:alice.api.localhost":                 404,
		strings.Repeat("a", 300) + ".api.localhost": 404,
		strings.Repeat("a.", 120) + "api.localhost": 404,
		"127.0.0.1":                                 404,
		"[::1]:80":                                  404,
		"-.api.localhost":                           404,
		".tenement.localhost":                       404,
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://front/", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = host
		answer, err := s.http.Do(request)
		if err != nil {
			t.Errorf("%q: %v", host, err)
			continue
		}
		_ = answer.Body.Close()
		// net/http itself refuses what is no Host header at all with 400.
		if answer.StatusCode != status && (status != 404 || answer.StatusCode != 400) {
			t.Errorf("%q: %d, want %d", host, answer.StatusCode, status)
		}
	}
	if after := tree(t, s.dir); after != before {
		t.Errorf("%d files and directories, were %d", after, before)
	}
}

// tree counts what is in dir.
func tree(t *testing.T, dir string) int {
	t.Helper()
	count := 0
	for _, sub := range []string{"", "/api"} {
		entries, err := os.ReadDir(dir + sub)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		count += len(entries)
	}
	return count
}

func TestManagementNeedsAToken(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	s.spawn("api:alice")
	s.wants("http://localhost/health", http.StatusOK)
	s.wants("http://localhost/api/instances", http.StatusUnauthorized)
	secret, err := s.api.CreateToken(t.Context(), api.TokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	remote, err := api.NewClient(api.Target{Server: "http://" + s.address, Token: secret.Secret})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Instances(t.Context(), api.ListOptions{}); tenement.CodeOf(err) != tenement.CodeNotFound {
		t.Errorf("at a host that is not the root domain: %v", err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/api/instances", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+secret.Secret)
	answer, err := s.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("with a token: %s", answer.Status)
	}
	file := daemon.StateDir(s.dir) + "/api_token"
	text, err := os.ReadFile(file)
	if err != nil || strings.TrimSpace(string(text)) != secret.Secret {
		t.Errorf("%s: %v", file, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v", file, info.Mode())
	}
}

func TestForwardingHeaders(t *testing.T) {
	t.Parallel()
	for trusted, want := range map[string]string{"": "127.0.0.1", "trusted_proxies = ['127.0.0.1']\n": "203.0.113.9, 127.0.0.1"} {
		s := build(t, settings+trusted+service("api", ""))
		s.spawn("api:alice")
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://alice.api.localhost/headers", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Forwarded-For", "203.0.113.9")
		answer, err := s.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		var seen struct{ Header http.Header }
		err = json.NewDecoder(answer.Body).Decode(&seen)
		if closeErr := answer.Body.Close(); err != nil || closeErr != nil {
			t.Fatal(err, closeErr)
		}
		if got := seen.Header.Get("X-Forwarded-For"); got != want {
			t.Errorf("with %q: X-Forwarded-For %q, want %q", trusted, got, want)
		}
	}
}

// TestListOfWhatDoesNotSleep: what is awake and what failed, page by page, and nothing else.
func TestListOfWhatDoesNotSleep(t *testing.T) {
	t.Parallel()
	s := build(t, settings+"max_restarts = 0\n"+service("api", "")+service("broken", "", "-exit=1"))
	s.spawn("api:alice", "api:bob", "api:sleeper", "broken:alice", "broken:untried")
	s.get("http://alice.api.localhost/")
	s.get("http://bob.api.localhost/")
	s.wants("http://alice.broken.localhost/", http.StatusServiceUnavailable)
	s.until("broken:alice", tenement.Failed)
	var listed []string
	for o := (api.ListOptions{AwakeOnly: true, Limit: 1}); ; {
		page, err := s.api.Instances(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range page.Instances {
			listed = append(listed, i.ID.String()+" "+i.State.String())
		}
		if page.Next.IsZero() || len(listed) > 5 {
			break
		}
		o.After = page.Next
	}
	if want := []string{"api:alice ready", "api:bob ready", "broken:alice failed"}; !slices.Equal(listed, want) {
		t.Errorf("listed %v, want %v", listed, want)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	t.Parallel()
	text := settings + service("api", "")
	s := build(t, text)
	c, err := config.Parse("tenement.toml", []byte(text), config.Overrides{DataDir: s.dir})
	if err != nil {
		t.Fatal(err)
	}
	err = daemon.Run(context.WithoutCancel(t.Context()), daemon.Options{Config: c})
	if tenement.CodeOf(err) != tenement.CodeConflict || tenement.HintOf(err) == "" {
		t.Errorf("error %v, hint %q", err, tenement.HintOf(err))
	}
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/")
}

func TestPortInUseIsAnErrorWithAHint(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	c, err := config.Parse("tenement.toml", []byte(settings+service("api", "")), config.Overrides{DataDir: shortDir(t), Listen: s.address})
	if err != nil {
		t.Fatal(err)
	}
	err = daemon.Run(context.WithoutCancel(t.Context()), daemon.Options{Config: c})
	if tenement.CodeOf(err) != tenement.CodeUnavailable || !strings.Contains(tenement.HintOf(err), "--listen") {
		t.Errorf("error %v, hint %q", err, tenement.HintOf(err))
	}
}

package daemon_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/daemon"
)

// environment is that of the tenant at a host.
func (s *site) environment(host string) []string {
	s.t.Helper()
	var env []string
	if err := json.Unmarshal([]byte(s.get("http://"+host+"/env")), &env); err != nil {
		s.t.Fatal(err)
	}
	return env
}

func (s *site) set(text string, change api.SettingsChange) api.Settings {
	s.t.Helper()
	settings, err := s.api.ChangeSettings(s.t.Context(), id(s.t, text), change)
	if err != nil {
		s.t.Fatal(err)
	}
	return settings
}

func (s *site) restart(text string) {
	s.t.Helper()
	if err := s.api.Restart(s.t.Context(), id(s.t, text)); err != nil {
		s.t.Fatal(err)
	}
}

func wantsVariables(t *testing.T, env []string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		name, absent := strings.CutPrefix(want, "!")
		if has := slices.ContainsFunc(env, func(v string) bool { return v == name || absent && strings.HasPrefix(v, name+"=") }); has == absent {
			t.Errorf("%s is not true of %q", want, env)
		}
	}
}

const hunter2 = "hunter2{id} and \"more\""

// TestSettings: what an instance has of its own comes before its service's from the next
// start on, is its own, survives the daemon and goes with the instance.
func TestSettings(t *testing.T) {
	t.Parallel()
	text := settings + service("api", "idle_timeout = 300\n[service.api.env]\nA = \"service's\"\nB = \"service's\"")
	s := build(t, text)
	s.spawn("api:alice", "api:bob")
	if s.set("api:alice", api.SettingsChange{Env: map[string]any{"A": "{id}'s"}}).RestartNeeded {
		t.Error("what sleeps needs a restart")
	}
	wantsVariables(t, s.environment("alice.api.localhost"), "A=alice's", "B=service's", "!TOKEN")

	got := s.set("api:alice", api.SettingsChange{
		Env: map[string]any{"A": nil, "B": "own"}, Secrets: map[string]any{"TOKEN": hunter2},
		Values: map[string]any{"idle_timeout": "200ms", "storage_quota_mb": 64},
	})
	if !got.RestartNeeded || !slices.Equal(got.Secrets, []string{"TOKEN"}) || strings.Contains(string(must(json.Marshal(got))), "hunter") {
		t.Errorf("answered %+v", got)
	}
	wantsVariables(t, s.environment("alice.api.localhost"), "A=alice's", "!TOKEN")
	s.restart("api:alice")
	wantsVariables(t, s.environment("alice.api.localhost"), "A=service's", "B=own", "TOKEN="+hunter2)
	wantsVariables(t, s.environment("bob.api.localhost"), "A=service's", "B=service's", "!TOKEN")
	s.until("api:alice", tenement.Asleep) // for want of traffic, and bob stays
	if got := s.instance("api:bob").State; got != tenement.Ready {
		t.Errorf("bob is %s", got)
	}
	if storage, err := s.api.Storage(t.Context(), id(t, "api:alice")); err != nil || storage.LimitBytes != 64<<20 {
		t.Errorf("storage %+v, %v", storage, err)
	}

	s.stop()
	s = buildIn(t, s.dir, text)
	wantsVariables(t, s.environment("alice.api.localhost"), "B=own", "TOKEN="+hunter2)
	nothingTells(t, s.dir, "hunter2")

	if err := s.api.Delete(t.Context(), id(t, "api:alice"), false); err != nil {
		t.Fatal(err)
	}
	s.spawn("api:alice")
	wantsVariables(t, s.environment("alice.api.localhost"), "B=service's", "!TOKEN")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// nothingTells wants no file of the daemon's own to have a text in it.
func nothingTells(t *testing.T, dataDir, text string) {
	t.Helper()
	err := filepath.WalkDir(daemon.StateDir(dataDir), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil //nolint:nilerr // gone meanwhile, or a FIFO
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(text)) {
			t.Errorf("%s tells it", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestSecretsNeedTheirKey: without it the instance does not start, and others do.
func TestSecretsNeedTheirKey(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	s.spawn("api:alice", "api:bob")
	s.set("api:alice", api.SettingsChange{Secrets: map[string]any{"TOKEN": hunter2}})
	key := filepath.Join(daemon.StateDir(s.dir), "secrets.key")
	kept := must(os.ReadFile(key))
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	err := s.api.Start(t.Context(), id(t, "api:alice"))
	if tenement.CodeOf(err) != tenement.CodeUnavailable || !strings.Contains(tenement.HintOf(err), "put the key back") {
		t.Errorf("without the key: %v (%s)", err, tenement.HintOf(err))
	}
	s.get("http://bob.api.localhost/health")
	s.write(key, string(kept), 0o600)
	wantsVariables(t, s.environment("alice.api.localhost"), "TOKEN="+hunter2)
}

// TestSettingsAreRefused, all of a change or nothing, and the audit log has no value.
func TestSettingsAreRefused(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	s.spawn("api:alice")
	alice := id(t, "api:alice")
	for name, change := range map[string]api.SettingsChange{
		"reserved":  {Env: map[string]any{"GOOD": "1", "PORT": "1"}},
		"a number":  {Secrets: map[string]any{"TOKEN": 5}},
		"bounds":    {Values: map[string]any{"pids_limit": -5}, Secrets: map[string]any{"TOKEN": hunter2}},
		"unknown":   {Values: map[string]any{"isolation": "process"}},
		"cron":      {Env: map[string]any{"GOOD": "1"}, Cron: map[string]any{"a": map[string]any{"schedule": "hourly", "path": "/"}}},
		"no line":   {Cron: map[string]any{"a": false}},
		"is secret": {Env: map[string]any{"X": hunter2}, Secrets: map[string]any{"X": hunter2}},
	} {
		_, err := s.api.ChangeSettings(t.Context(), alice, change)
		if tenement.CodeOf(err) != tenement.CodeInvalid || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := must(s.api.Settings(t.Context(), alice)); len(got.Env)+len(got.Values)+len(got.Secrets)+len(got.Cron) != 0 {
		t.Errorf("something was set: %+v", got)
	}
	_, err := s.api.ChangeSettings(t.Context(), id(t, "api:nobody"), api.SettingsChange{Env: map[string]any{"A": "1"}})
	if tenement.CodeOf(err) != tenement.CodeNotFound {
		t.Errorf("of nobody: %v", err)
	}
	nothingTells(t, s.dir, "hunter")
}

// TestSettingsOutOfBoundsByNow: what the configuration says later can make them so, and
// the start says it.
func TestSettingsOutOfBoundsByNow(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", "wake_timeout = 60"))
	s.spawn("api:alice")
	s.set("api:alice", api.SettingsChange{Values: map[string]any{"startup_timeout": 50}})
	s.text.Store(settings + service("api", "wake_timeout = 40"))
	if _, err := s.api.Reload(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	err := s.api.Start(t.Context(), id(t, "api:alice"))
	if tenement.CodeOf(err) != tenement.CodeUnavailable || !strings.Contains(err.Error(), "startup_timeout is longer") || !strings.Contains(tenement.HintOf(err), "ten set api:alice") {
		t.Errorf("%v (%s)", err, tenement.HintOf(err))
	}
	s.set("api:alice", api.SettingsChange{Values: map[string]any{"startup_timeout": nil}})
	s.restart("api:alice")
}

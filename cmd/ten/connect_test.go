package main

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tenement/internal/api"
)

// TestTarget is not parallel: it sets the environment.
func TestTarget(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, ".tenement", "ten.sock")
	t.Setenv("TENEMENT_TOKEN", "env-token")
	for name, row := range map[string]struct {
		envServer string
		app       app
		want      api.Target
	}{
		"environment":           {"http://env", app{}, api.Target{Server: "http://env", Token: "env-token"}},
		"same server by flag":   {"http://env", app{server: "http://env"}, api.Target{Server: "http://env", Token: "env-token"}},
		"other server by flag":  {"http://env", app{server: "http://flag"}, api.Target{Server: "http://flag"}},
		"token by flag":         {"http://env", app{token: "flag-token"}, api.Target{Server: "http://env", Token: "flag-token"}},
		"this machine by flag":  {"http://env", app{dataDir: dir}, api.Target{Socket: socket}},
		"token without server":  {"", app{dataDir: dir}, api.Target{Socket: socket, Token: "env-token"}},
		"token for server flag": {"", app{server: "http://flag"}, api.Target{Server: "http://flag", Token: "env-token"}},
	} {
		t.Setenv("TENEMENT_SERVER", row.envServer)
		got, err := row.app.target()
		if diff := cmp.Diff(row.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
}

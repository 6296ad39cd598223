package e2e

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tenement/internal/runtime/runtimetest"
)

var adminLine = regexp.MustCompile(`management API on (http://\S+)`)

// admin is the daemon as it is reached at the listener of its management API.
func (d *daemon) admin() *daemon {
	d.t.Helper()
	at := &daemon{t: d.t, client: d.client}
	runtimetest.Eventually(d.t, "the daemon says where its management API is", func() bool {
		d.output.mu.Lock()
		defer d.output.mu.Unlock()
		if found := adminLine.FindSubmatch(d.output.said.Bytes()); found != nil {
			at.base = string(found[1])
		}
		return at.base != ""
	})
	return at
}

// TestAdminListener: it has the management API and nothing else, for nobody who was led
// here by a name of his own; and it stays through an upgrade.
func TestAdminListener(t *testing.T) {
	t.Parallel()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "tenement.toml")
	writeConfig(t, config, "[routing]\ndefault = 'notes'") // so that the front has no API
	d := startAt(t, filepath.Join(root, "bin", "ten"), config, t.TempDir(), "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	d.command("spawn", "notes:alice")
	token := "Bearer " + strings.TrimSpace(d.command("token-gen"))
	admin := d.admin()
	self := strings.TrimPrefix(admin.base, "http://")
	check := func() {
		t.Helper()
		admin.get(200, self, "/api/instances/notes:alice", "Authorization", token)
		admin.get(401, self, "/api/instances/notes:alice")
		for _, rebound := range []string{"evil.example", "alice.notes.localhost"} {
			admin.get(421, rebound, "/api/instances/notes:alice", "Authorization", token)
			admin.get(421, rebound, "/health")
			admin.get(421, rebound, "/")
		}
		admin.get(200, self, "/")
		admin.expect(403, "POST", self, "/api/instances/notes:alice/stop", "", "Authorization", token, "Origin", "http://evil.example")
		admin.expect(403, "POST", self, "/api/instances/notes:alice/stop", "", "Authorization", token, "Sec-Fetch-Site", "same-site")
		admin.expect(204, "POST", self, "/api/instances/notes:alice/stop", "", "Authorization", token, "Origin", admin.base)
		if a := d.do("GET", strings.TrimPrefix(d.base, "http://"), "/api/instances", "", "Authorization", token); a.status == 200 && strings.Contains(a.body, "notes:alice") {
			t.Errorf("the front answers the management API at its address: %s", a.body)
		}
	}
	check()
	d.upgrade()
	runtimetest.Eventually(t, "the new daemon is asked", func() bool { return admin.do("GET", self, "/health", "").status == 200 })
	check()
}

package e2e

import (
	"net/http"
	"strings"
	"testing"

	"tenement/internal/runtime/runtimetest"
)

// frozen waits until an instance is, and gives its process.
func (d *daemon) frozen(id string) int {
	d.t.Helper()
	runtimetest.Eventually(d.t, id+" is frozen", func() bool { return strings.Contains(d.command("ps"), "frozen") })
	return d.pid(id)
}

// TestFrozenThroughKillAndUpgrade: it stays frozen, and goes on as the process that it was.
func TestFrozenThroughKillAndUpgrade(t *testing.T) {
	t.Parallel()
	d := startText(t, echoing("echo", `freeze_timeout = "300ms"`))
	d.command("spawn", "echo:alice")
	tenant := d.frozen("echo:alice")
	d.kill()
	for _, next := range []func(){
		func() { d = startConfig(t, d.config, d.dataDir) },
		func() { d.upgrade() },
	} {
		next()
		if out := d.command("inspect", "echo:alice"); !strings.Contains(out, "frozen") {
			t.Errorf("it is not frozen any more:\n%s", out)
		}
		if out := d.command("health", "echo:alice"); !strings.Contains(out, "unknown") {
			t.Errorf("its health: %s", out)
		}
		d.get(http.StatusOK, "alice.echo.localhost", "/")
		if pid := d.frozen("echo:alice"); pid != tenant {
			t.Errorf("process %d, was %d", pid, tenant)
		}
	}
	d.command("stop", "echo:alice")
	waitGone(t, tenant)
	if out := d.command("inspect", "echo:alice"); !strings.Contains(out, "asleep") {
		t.Errorf("stopped it is\n%s", out)
	}
}

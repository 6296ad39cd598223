package e2e

import (
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"tenement/internal/runtime/runtimetest"
)

// TestAlertOfAFullDisk: it gets out though nothing can be written down, and so does its end.
func TestAlertOfAFullDisk(t *testing.T) {
	t.Parallel()
	var status atomic.Int64
	status.Store(http.StatusNoContent)
	url, messages := alertReceiver(t, &status)
	d := launchOnDisk(t, "6m", "true", alertsTo(t, url, "disk_low_mb = 1"))
	d.waitServing()
	d.command("spawn", "echo:alice", "--no-wake")
	room := d.fill()
	if m := runtimetest.Within(t, "the alert", messages); !strings.Contains(m, `"type":"disk_low"`) || !strings.Contains(m, `"available_bytes":0`) {
		t.Error(m)
	}
	if err := os.Remove(room); err != nil {
		t.Fatal(err)
	}
	if m := runtimetest.Within(t, "its end", messages); !strings.Contains(m, `"type":"disk_low.resolved"`) {
		t.Error(m)
	}
}

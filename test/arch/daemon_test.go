package arch

import (
	"os/exec"
	"strings"
	"testing"
)

// TestDaemonDrawsNothing: what draws on terminals is for people at one. A daemon neither
// links it for its work nor waits for it.
func TestDaemonDrawsNothing(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", module+"/internal/daemon").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	imported := strings.Fields(string(out))
	if len(imported) < 100 {
		t.Fatalf("go list names only %d packages", len(imported))
	}
	for _, p := range imported {
		if strings.HasPrefix(p, "charm.land/") || p == module+"/internal/top" {
			t.Errorf("the daemon depends on %s", p)
		}
	}
}

package daemon_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"tenement/internal/cgroup"
	"tenement/internal/listening"
)

// TestTheKernelTellsWhoListens: a program is attached above all tenants, and nothing is
// left of it when the daemon has ended and its tenants live on.
func TestTheKernelTellsWhoListens(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	s := buildWith(t, dir, settings+service("api", ""), true)
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/")
	own, err := cgroup.Of(s.instance("api:alice").PID)
	if err != nil {
		t.Skipf("%v (run as root on a machine with a cgroup v2 hierarchy)", err)
	}
	above := filepath.Dir(own)
	if !strings.HasPrefix(filepath.Base(above), "tenement-") {
		t.Skip("tenants have no cgroups here (run as root on a machine with a cgroup v2 hierarchy)")
	}
	requireListening(t, above)
	if n := attached(t, above); n != 1 {
		t.Errorf("%d programs are attached to %s", n, above)
	}
	s.stop()
	if n := attached(t, above); n != 0 {
		t.Errorf("%d programs are still attached", n)
	}
	buildIn(t, dir, settings+service("api", "")).stop() // which puts her to sleep
}

func requireListening(t *testing.T, dir string) {
	t.Helper()
	events, err := listening.Open(dir)
	switch {
	case err == nil:
		if err := events.Close(); err != nil {
			t.Error(err)
		}
	case slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), "bpf"):
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// attached counts what the kernel runs when sockets of a cgroup do something.
func attached(t *testing.T, dir string) int {
	t.Helper()
	file, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	programs, err := link.QueryPrograms(link.QueryOptions{Target: int(file.Fd()), Attach: ebpf.AttachCGroupSockOps})
	if err != nil {
		t.Fatal(err)
	}
	return len(programs.Programs)
}

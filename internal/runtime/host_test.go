package runtime_test

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"tenement/internal/cgroup"
	"tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
)

func TestMain(m *testing.M) {
	runtimetest.TenantMain()
	os.Exit(m.Run())
}

func TestHostWithoutCgroups(t *testing.T) {
	t.Parallel()
	runtimetest.Suite(t, func(*testing.T) runtime.Runtime {
		return runtime.NewHost(nil, slog.New(slog.DiscardHandler))
	})
}

func TestHostWithCgroups(t *testing.T) {
	t.Parallel()
	runtimetest.Suite(t, func(t *testing.T) runtime.Runtime {
		tree, err := cgroup.Open(fmt.Sprintf("tenement-test-%d-%s", os.Getpid(), strings.NewReplacer("/", "_", " ", "_").Replace(t.Name())))
		if err != nil {
			if strings.Contains(os.Getenv("TENEMENT_REQUIRE"), "cgroup") {
				t.Fatal(err)
			}
			t.Skipf("%v (run as root on a machine with a cgroup v2 hierarchy)", err)
		}
		t.Cleanup(func() {
			if err := tree.Close(); err != nil {
				t.Errorf("something is left in the cgroup: %v", err)
			}
		})
		return runtime.NewHost(tree, slog.New(slog.DiscardHandler))
	})
}

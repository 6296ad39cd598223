package runtime_test

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tenement/internal/cgroup"
	"tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
)

var kinds = map[string]runtimetest.Opener{"host": openHost, "host with cgroups": openHostWithCgroups}

func TestMain(m *testing.M) {
	runtimetest.TenantMain()
	runtimetest.DaemonMain(kinds)
	runtimetest.OwnNetwork()
	os.Exit(m.Run())
}

func openHost(dir string) (runtime.Runtime, func() error, error) {
	rt, err := runtime.NewHost(filepath.Join(dir, "output"), nil, nil, slog.New(slog.DiscardHandler))
	return rt, func() error { return nil }, err
}

func openHostWithCgroups(dir string) (runtime.Runtime, func() error, error) {
	tree, err := cgroup.Open(fmt.Sprintf("tenement-test-%x", sha256.Sum256([]byte(dir))))
	if err != nil {
		return nil, nil, err
	}
	rt, err := runtime.NewHost(filepath.Join(dir, "output"), tree, nil, slog.New(slog.DiscardHandler))
	return rt, tree.Close, err
}

func TestHostWithoutCgroups(t *testing.T) {
	t.Parallel()
	runtimetest.Suite(t, kinds, "host")
}

func TestHostWithCgroups(t *testing.T) {
	t.Parallel()
	_, closeTree, err := openHostWithCgroups(t.TempDir())
	if err != nil {
		if strings.Contains(os.Getenv("TENEMENT_REQUIRE"), "cgroup") {
			t.Fatal(err)
		}
		t.Skipf("%v (run as root on a machine with a cgroup v2 hierarchy)", err)
	}
	if err := closeTree(); err != nil {
		t.Fatal(err)
	}
	runtimetest.Suite(t, kinds, "host with cgroups")
}

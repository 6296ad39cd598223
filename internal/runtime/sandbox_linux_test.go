package runtime_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
)

func init() { kinds["sandbox"] = openSandbox }

func openSandbox(dir string) (runtime.Runtime, func() error, error) {
	namespaces, closeNamespaces, err := openNamespace(dir)
	if err != nil {
		return nil, nil, err
	}
	boxes := filepath.Join(dir, "boxes")
	rt, err := runtime.NewSandbox(namespaces.(*runtime.Namespace), boxes)
	if err != nil {
		return nil, nil, err
	}
	for _, above := range []string{dir, filepath.Dir(dir)} { // t.TempDir() is closed to others
		if err := os.Chmod(above, 0o711); err != nil {
			return nil, nil, err
		}
	}
	return rt, func() error { return errors.Join(rt.Sweep(), os.Remove(boxes), closeNamespaces()) }, nil
}

// requireRunsc skips where the pinned runsc is not to be had, or fails there if
// TENEMENT_REQUIRE lists it.
func requireRunsc(tb testing.TB) {
	tb.Helper()
	_, err := runtime.FindRunsc()
	if err == nil && os.Getuid() != 0 {
		err = errors.New("only root can make sandboxes: run the tests as root")
	}
	switch {
	case err == nil:
	case slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), "runsc"):
		tb.Fatal(err)
	default:
		tb.Skipf("%v: run tools/runsc.sh, and put the directory that it prints into PATH", err)
	}
}

func TestSandbox(t *testing.T) {
	t.Parallel()
	requireRunsc(t)
	runtimetest.Suite(t, kinds, "sandbox")
}

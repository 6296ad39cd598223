package runtime_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
)

// slicesOf counts those of all threads of a process; 0 stands for the kernel's choice.
func slicesOf(t *testing.T, pid int) map[time.Duration]int {
	t.Helper()
	tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[time.Duration]int)
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		attr, err := unix.SchedGetAttr(tid, 0)
		if err != nil {
			continue // it has ended meanwhile
		}
		found[time.Duration(attr.Runtime)]++
	}
	return found
}

// Not parallel: it changes all threads of the tests.
func TestTenantsHaveTheUsualSlices(t *testing.T) {
	const short = 100 * time.Microsecond
	usual := slicesOf(t, os.Getpid())
	if err := runtime.ShortenSlices(); err != nil {
		t.Fatal(err)
	}
	if found := slicesOf(t, os.Getpid()); len(found) != 1 || found[short] == 0 {
		t.Skipf("a thread's slice cannot be chosen here, it takes Linux 6.12: was %v, is %v", usual, found)
	}
	for _, kind := range []string{"host", "namespace", "sandbox"} {
		t.Run(kind, func(t *testing.T) {
			switch kind {
			case "namespace":
				if err := runtime.CheckNamespaces(); err != nil {
					requireRoot(t, err)
				}
			case "sandbox":
				requireRunsc(t)
			}
			rt, closeRuntime, err := kinds[kind](t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := closeRuntime(); err != nil {
					t.Error(err)
				}
			}()
			dataDir := filepath.Join(t.TempDir(), "alice")
			if err := os.Mkdir(dataDir, 0o700); err != nil {
				t.Fatal(err)
			}
			uid, err := runtimetest.OwnUID(kind, dataDir)
			if err != nil {
				t.Fatal(err)
			}
			p, err := rt.Start(t.Context(), runtime.Spec{
				Instance: tenement.InstanceID{Service: "api", Name: "alice"}, DataDir: dataDir, UID: uid,
				Service: &tenement.Service{
					Name: "api", Egress: tenement.EgressDeny, DataDir: filepath.Dir(dataDir),
					Command: []tenement.Template{tenement.MustTemplate("sleep"), tenement.MustTemplate("1000")},
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			found := slicesOf(t, p.Ref().PID)
			if err := p.Kill(); err != nil {
				t.Error(err)
			}
			<-p.Exited()
			if err := p.Release(t.Context()); err != nil {
				t.Error(err)
			}
			if found[short] > 0 || len(found) == 0 {
				t.Errorf("its threads have the slices %v", found)
			}
		})
	}
	if found := slicesOf(t, os.Getpid()); len(found) != 1 || found[short] == 0 {
		t.Errorf("the threads of the daemon have the slices %v", found)
	}
}

package cgroup_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tenement"
	"tenement/internal/cgroup"
)

// open makes a tree for the test, or skips where there is none to be had.
func open(t *testing.T) *cgroup.Tree {
	t.Helper()
	tree, err := cgroup.Open(fmt.Sprintf("tenement-test-%d-%s", os.Getpid(), t.Name()))
	if err != nil {
		if strings.Contains(os.Getenv("TENEMENT_REQUIRE"), "cgroup") {
			t.Fatal(err)
		}
		t.Skipf("%v (run as root on a machine with a cgroup v2 hierarchy)", err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	return tree
}

func TestKillEndsAllAndTheGroupCanGo(t *testing.T) {
	t.Parallel()
	tree := open(t)
	for range 20 { // a group is busy for a moment after its processes have left the list
		group, err := tree.New("api.alice", tenement.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		shell := startIn(t, group, "setsid sleep 1000 & sleep 1000 & wait")
		pids, err := group.Processes()
		if err != nil || !slices.Contains(pids, shell.Process.Pid) {
			t.Errorf("processes %v without %d, %v", pids, shell.Process.Pid, err)
		}
		if err := group.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = shell.Wait() // killed: an error by design
		for populated := true; populated; {
			if populated, err = group.Populated(); err != nil {
				t.Fatal(err)
			}
		}
		if err := group.Remove(); err != nil {
			t.Fatal(err)
		}
		if err := group.Remove(); err != nil {
			t.Errorf("again: %v", err)
		}
	}
}

func TestSweepEndsWhatWasLeft(t *testing.T) {
	t.Parallel()
	tree := open(t)
	var left []*exec.Cmd
	for range 3 {
		group, err := tree.New("api.alice", tenement.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, startIn(t, group, "sleep 1000"))
	}
	if _, err := tree.New("empty", tenement.Limits{}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do
		if err := tree.Sweep(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range left {
		if err := c.Wait(); err == nil {
			t.Error("it ended by itself")
		}
	}
}

func TestSweepSparesWhatIsKept(t *testing.T) {
	t.Parallel()
	tree := open(t)
	kept, err := tree.New("api.alice", tenement.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := tree.New("api.bob", tenement.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	lives, ends := startIn(t, kept, "sleep 1000"), startIn(t, other, "sleep 1000")
	if err := tree.Sweep(t.Context(), func(path string) bool { return path == kept.Path() }); err != nil {
		t.Fatal(err)
	}
	_ = ends.Wait() // killed: an error by design
	if path, err := cgroup.Of(lives.Process.Pid); path != kept.Path() || err != nil {
		t.Errorf("what was kept is in %q and not in %q, %v", path, kept.Path(), err)
	}
	if err := tree.Close(); err != nil {
		t.Errorf("close while something is left running on purpose: %v", err)
	}
	if err := tree.Sweep(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	_ = lives.Wait() // killed: an error by design
}

func TestCloseTellsOfAGroupThatWasForgotten(t *testing.T) {
	t.Parallel()
	tree := open(t)
	group, err := tree.New("api.alice", tenement.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Close(); err == nil {
		t.Error("no error")
	}
	if err := group.Remove(); err != nil {
		t.Fatal(err)
	}
}

// TestMain starts a process before any test looks which there are in this one's cgroup:
// before its first, Go tries in a child of its own what the kernel can do.
func TestMain(m *testing.M) {
	if err := exec.CommandContext(context.Background(), "true").Run(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// startIn runs a shell's script in group.
func startIn(t *testing.T, group *cgroup.Group, script string) *exec.Cmd {
	t.Helper()
	dir, err := group.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	shell := exec.CommandContext(t.Context(), "sh", "-c", script)
	shell.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	return shell
}

func TestGroupThatIsGoneIsEmpty(t *testing.T) {
	t.Parallel()
	group := cgroup.At("/sys/fs/cgroup/no-such-group")
	if populated, err := group.Populated(); populated || err != nil {
		t.Errorf("%v, %v", populated, err)
	}
	if pids, err := group.Processes(); len(pids) > 0 || err != nil {
		t.Errorf("%v, %v", pids, err)
	}
	if err := group.Kill(); err != nil {
		t.Errorf("kill: %v", err)
	}
}

func TestErrorSaysWhatToDo(t *testing.T) {
	t.Parallel()
	_, err := cgroup.Open("no/such/parent")
	if tenement.CodeOf(err) != tenement.CodeUnavailable || tenement.HintOf(err) == "" {
		t.Errorf("error %v, hint %q", err, tenement.HintOf(err))
	}
}

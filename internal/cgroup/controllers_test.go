package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"tenement"
)

// TestCompanionsAreMovedAlong shows files that look like those of a cgroup, since it must
// be one that the test is alone in.
func TestCompanionsAreMovedAlong(t *testing.T) {
	t.Parallel()
	const keeper, stranger = 1 << 30, 1<<30 + 1 // pids that no kernel gives
	tree := &Tree{parent: t.TempDir(), companions: []int{keeper}}
	has := func(pids ...int) {
		t.Helper()
		text := ""
		for _, pid := range pids {
			text += fmt.Sprintln(pid)
		}
		if err := os.WriteFile(filepath.Join(tree.parent, "cgroup.procs"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(tree.parent, subtreeControl), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	has(os.Getpid(), keeper)
	if pids, err := tree.inTheWay("memory"); err != nil || !slices.Equal(pids, []int{os.Getpid(), keeper}) {
		t.Errorf("to be moved are %v, %v", pids, err)
	}
	has(os.Getpid(), keeper, stranger)
	if _, err := tree.inTheWay("memory"); tenement.CodeOf(err) != tenement.CodeUnavailable {
		t.Errorf("a stranger is in the way, but the error is %v", err)
	}
}

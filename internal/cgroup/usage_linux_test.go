package cgroup_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tenement"
	"tenement/internal/cgroup"
)

// TestUsageFollowsWhatRuns: whatever a look keeps for the next one, that one tells what is
// so by then.
func TestUsageFollowsWhatRuns(t *testing.T) {
	t.Parallel()
	group, err := open(t).New("api.alice", tenement.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(t.TempDir(), "go")
	shell := startIn(t, group, fmt.Sprintf("mkfifo %s; read _ < %[1]s; x=$(head -c 32000000 /dev/zero | tr '\\0' x); read _ < %[1]s", fifo))
	before, err := group.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for _, err := os.Stat(fifo); err != nil; _, err = os.Stat(fifo) {
		continue
	}
	if err := os.WriteFile(fifo, []byte("\n"), 0); err != nil {
		t.Fatal(err)
	}
	for after := before; after.Memory < before.Memory+30_000_000; {
		if after, err = group.Usage(); err != nil {
			t.Fatal(err)
		}
		if after.CPU < before.CPU {
			t.Fatalf("%s of processor time after %s", after.CPU, before.CPU)
		}
	}
	end(t, group)
	_ = shell.Wait() // killed: an error by design
}

func TestGroupLetsGoOfItsDescriptor(t *testing.T) {
	t.Parallel()
	tree := open(t)
	for name, letGo := range map[string]func(*cgroup.Group){
		"close":  (*cgroup.Group).Close,
		"remove": func(g *cgroup.Group) { end(t, g) },
	} {
		group, err := tree.New("api.alice", tenement.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := group.Usage(); err != nil {
				t.Fatal(err)
			}
		}
		if n := descriptorsBelow(t, group.Path()); n != 1 {
			t.Errorf("%s: %d descriptors after two looks", name, n)
		}
		letGo(group)
		if n := descriptorsBelow(t, group.Path()); n != 0 {
			t.Errorf("%s: %d descriptors are left", name, n)
		}
		if u, err := group.Usage(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
		end(t, group)
	}
}

// descriptorsBelow counts this process's that lead into dir.
func descriptorsBelow(t *testing.T, dir string) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, dir+"/") {
			n++
		}
	}
	return n
}

package measure

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// TestOwnCosts: a process that computes uses time, has memory and belongs to its tree;
// one that nobody has waited for has none, and is no error.
func TestOwnCosts(t *testing.T) {
	t.Parallel()
	own := []int{os.Getpid()}
	before, end := CPU(own), time.Now().Add(2*time.Minute)
	for CPU(own) < before+3*tick {
		if time.Now().After(end) {
			t.Fatal("it has computed for two minutes and used nothing")
		}
	}
	memory, err := MemoryOf(own)
	if err != nil || memory.PSS <= 0 || memory.RSS < memory.PSS {
		t.Errorf("%+v, %v", memory, err)
	}
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(Tree(os.Getpid()), child.Process.Pid) {
		t.Error("the child is not in the tree")
	}
	if !slices.Contains(Naming("sleep\x001000"), child.Process.Pid) {
		t.Error("the child is not found by what it was started with")
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for { // until it is a zombie
		gone, err := MemoryOf([]int{child.Process.Pid})
		if err != nil || time.Now().After(end) {
			t.Fatalf("%+v, %v", gone, err)
		}
		if gone == (Memory{}) {
			break
		}
	}
	_ = child.Wait() // killed: an error by design
	if gone, err := MemoryOf([]int{child.Process.Pid}); err != nil || gone != (Memory{}) {
		t.Errorf("gone: %+v, %v", gone, err)
	}
}

func TestMachine(t *testing.T) {
	t.Parallel()
	m := Machine()
	for _, name := range []string{"kernel", "memory", "cores"} {
		if m[name] == "" {
			t.Errorf("no %s: %v", name, m)
		}
	}
	if Available() <= 0 {
		t.Error("no memory")
	}
}

package cgroup_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tenement"
	"tenement/internal/cgroup"
)

var everyLimit = tenement.Limits{Memory: 64 << 20, CPUShares: 250, CPU: 0.5, PIDs: 50, IOWeight: 350}

// openLimited is open where every controller can be had; elsewhere it skips, or fails if
// TENEMENT_REQUIRE lists controllers.
func openLimited(t *testing.T) *cgroup.Tree {
	t.Helper()
	tree := open(t)
	for _, err := range tree.Missing() {
		if slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), "controllers") {
			t.Fatal(err)
		}
		t.Skipf("%v (run test/vm, whose machine has every controller)", err)
	}
	return tree
}

func TestLimitsAreSet(t *testing.T) {
	t.Parallel()
	tree := openLimited(t)
	group, err := tree.New("api.alice", everyLimit)
	if err != nil {
		t.Fatal(err)
	}
	free, err := tree.New("api.bob", tenement.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		group      *cgroup.Group
		file, want string
	}{
		{group, "memory.max", "67108864"},
		{group, "memory.swap.max", "0"},
		{group, "memory.oom.group", "1"},
		{group, "cpu.weight", "250"},
		{group, "cpu.max", "50000 100000"},
		{group, "pids.max", "50"},
		{group, "io.weight", "default 350"},
		{free, "memory.max", "max"},
		{free, "memory.oom.group", "0"},
		{free, "cpu.weight", "100"},
		{free, "cpu.max", "max 100000"},
		{free, "pids.max", "max"},
	} {
		text, err := os.ReadFile(filepath.Join(test.group.Path(), test.file))
		if got := strings.TrimSpace(string(text)); got != test.want || err != nil {
			t.Errorf("%s is %q, want %q, %v", test.file, got, test.want, err)
		}
	}
	for _, g := range []*cgroup.Group{group, free} {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	}
}

func TestRefusedProcessesAreCounted(t *testing.T) {
	t.Parallel()
	group, err := openLimited(t).New("api.alice", tenement.Limits{PIDs: 3})
	if err != nil {
		t.Fatal(err)
	}
	shell := startIn(t, group, "sleep 1000 & sleep 1000 & sleep 1000 & wait")
	_ = shell.Wait() // the shell gives up
	if n, err := group.PIDRefusals(); n == 0 || err != nil {
		t.Errorf("refused %d times, %v", n, err)
	}
	end(t, group)
}

// end kills what is in the group and removes it.
func end(t *testing.T, group *cgroup.Group) {
	t.Helper()
	if err := group.Kill(); err != nil {
		t.Fatal(err)
	}
	for populated := true; populated; {
		var err error
		if populated, err = group.Populated(); err != nil {
			t.Fatal(err)
		}
	}
	if err := group.Remove(); err != nil {
		t.Error(err)
	}
}

// TestMissingControllerIsAnError: a limit that cannot be set leaves no group.
func TestMissingControllerIsAnError(t *testing.T) {
	t.Parallel()
	tree := open(t)
	missing := tree.Missing()
	for controller, limits := range map[string]tenement.Limits{
		"memory": {Memory: 1 << 30}, "cpu": {CPU: 1}, "pids": {PIDs: 10}, "io": {IOWeight: 10},
	} {
		if missing[controller] == nil {
			continue
		}
		_, err := tree.New("api.alice", limits)
		if tenement.CodeOf(err) != tenement.CodeUnavailable || tenement.HintOf(err) == "" {
			t.Errorf("%s: error %v, hint %q", controller, err, tenement.HintOf(err))
		}
	}
	group, err := tree.New("api.alice", tenement.Limits{OpenFiles: 10, Storage: 10}) // no cgroup's
	if err != nil {
		t.Fatal(err)
	}
	end(t, group) // and with it the tree is empty, says open
}

func TestFreezeAndThaw(t *testing.T) {
	t.Parallel()
	group, err := open(t).New("api.alice", tenement.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	shell := startIn(t, group, "while :; do :; done")
	if err := group.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantFrozen(t, group, true)
	usage := func() tenement.Usage {
		t.Helper()
		u, err := group.Usage()
		if err != nil || u.Memory == 0 {
			t.Fatalf("usage %+v, %v", u, err)
		}
		return u
	}
	before, began := usage().CPU, time.Now()
	for time.Since(began) < 50*time.Millisecond { // it would run all of that time
		continue
	}
	before, ran := usage().CPU, usage().CPU-before
	if ran > 25*time.Millisecond { // the last of what it ran may be counted late
		t.Errorf("what is frozen runs for %s of %s", ran, time.Since(began))
	}
	if err := group.Thaw(); err != nil {
		t.Fatal(err)
	}
	wantFrozen(t, group, false)
	for usage().CPU < before+50*time.Millisecond { // goes on
		continue
	}
	if err := group.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	end(t, group)
	_ = shell.Wait() // killed: an error by design
	if err := group.Thaw(); err != nil {
		t.Errorf("thaw what is gone: %v", err)
	}
	if n, err := group.OOMKills(); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func wantFrozen(t *testing.T, group *cgroup.Group, want bool) {
	t.Helper()
	if frozen, err := group.Frozen(); frozen != want || err != nil {
		t.Errorf("frozen: %t, %v", frozen, err)
	}
}

// TestFreezeIsCalledOff: who does not wait for it any more does not leave it half done.
func TestFreezeIsCalledOff(t *testing.T) {
	t.Parallel()
	group, err := open(t).New("api.alice", tenement.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	shell := startIn(t, group, "while :; do :; done")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // it may be faster
		err = group.Freeze(ctx)
		wantFrozen(t, group, err == nil)
		if err != nil {
			break
		}
		if err := group.Thaw(); err != nil {
			t.Fatal(err)
		}
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	end(t, group)
	_ = shell.Wait() // killed: an error by design
}

func TestParentMustBeACgroup(t *testing.T) {
	for _, path := range []string{t.TempDir(), "relative", "/sys/fs/cgroup/unified/no-such-group"} {
		t.Setenv(cgroup.ParentVariable, path)
		if _, err := cgroup.Open("tenement-test"); tenement.CodeOf(err) != tenement.CodeUnavailable || tenement.HintOf(err) == "" {
			t.Errorf("%s: error %v, hint %q", path, err, tenement.HintOf(err))
		}
	}
}

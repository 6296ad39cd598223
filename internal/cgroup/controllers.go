package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"tenement"
)

// A cgroup that has controllers turned on for those below it may hold no process itself
// (cgroup-v2.rst, "No Internal Process Constraint"). These are the leaves into which
// what is in the way is moved.
const (
	daemonLeaf = "tenement-daemon" // of the daemon, which was alone in a delegated cgroup
	keeperLeaf = "keeper"          // of whatever keeps a cgroup for tenants
)

// aboveLeaf is where the tree of a daemon in the cgroup own belongs, which may have been
// moved into its leaf by itself or by the daemon before.
func aboveLeaf(own string) string {
	if filepath.Base(own) == daemonLeaf {
		return filepath.Dir(own)
	}
	return own
}

// Controllers are those that limits need, in the order of their names.
func Controllers() []string { return []string{"cpu", "io", "memory", "pids"} }

// Missing lists the controllers that the groups of the tree cannot have, with the
// reason. It turns none on.
func (t *Tree) Missing() map[string]error {
	missing := make(map[string]error)
	for _, name := range Controllers() {
		err := t.canEnable(name)
		if err == nil && !t.given && !t.atRoot() {
			_, err = t.inTheWay(name)
		}
		if err != nil {
			missing[name] = err
		}
	}
	return missing
}

// MissingIn is [Tree.Missing] for a tree in parent, a cgroup that is for tenants alone.
func MissingIn(parent string) map[string]error {
	return (&Tree{parent: parent, given: true}).Missing()
}

// atRoot reports whether the tree is in the root of the hierarchy, which may hold
// processes besides.
func (t *Tree) atRoot() bool {
	mount, err := mountPoint()
	return err == nil && mount == t.parent
}

func (t *Tree) canEnable(controller string) error {
	available, err := words(t.parent, "cgroup.controllers")
	if err == nil && !slices.Contains(available, controller) {
		return t.notHere(controller)
	}
	return err
}

const subtreeControl = "cgroup.subtree_control"

// provide makes sure that the groups of the tree have the controllers of the settings.
func (t *Tree) provide(wanted []setting) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range wanted {
		if t.enabled[s.controller] {
			continue
		}
		if err := t.enable(s.controller); err != nil {
			e := s.unavailable(err)
			if e.Hint = tenement.HintOf(err); e.Hint == "" {
				e.Hint = unprovided
			}
			return e
		}
	}
	return nil
}

const unprovided = "run it under systemd by `ten install`, or name a delegated cgroup in " + ParentVariable

// enableAll turns on every controller that there is; one that is missing is missed by
// the limit that needs it.
func (t *Tree) enableAll() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range Controllers() {
		if t.canEnable(name) != nil {
			continue
		}
		if err := t.enable(name); err != nil {
			return err
		}
	}
	return nil
}

// renew makes the tree again in a cgroup that was removed, with all that was in it, and
// made anew: its keeper had ended.
func (t *Tree) renew(wanted []setting) error {
	t.mu.Lock()
	clear(t.enabled)
	t.mu.Unlock()
	if err := os.Mkdir(t.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "make the tenants' cgroup", Err: err,
			Hint: "the unit of " + ParentVariable + " has ended: start it again, with systemctl start tenement-tenants.service after `ten install`",
		}
	}
	if err := t.enableAll(); err != nil {
		return err
	}
	return t.provide(wanted)
}

// enable turns a controller on for the groups of the tree.
func (t *Tree) enable(controller string) error {
	if err := t.canEnable(controller); err != nil {
		return err
	}
	if !t.atRoot() {
		if err := t.vacate(); err != nil {
			return err
		}
	}
	if err := turnOn(t.parent, controller); err != nil {
		return err
	}
	if err := turnOn(t.dir, controller); err != nil {
		return err
	}
	t.enabled[controller] = true
	return nil
}

func turnOn(dir, controller string) error {
	turned, err := words(dir, subtreeControl)
	if err != nil || slices.Contains(turned, controller) {
		return err
	}
	if err := put(dir, subtreeControl, "+"+controller); err != nil {
		return fmt.Errorf("turn on the %s controller: %w", controller, err)
	}
	return nil
}

// vacate moves what is in the tree's parent into a leaf. The kernel refuses to turn on
// memory and io before that, but not cpu and pids: it would make a threaded domain of the
// parent, in which the tree could have no controller (cgroup-v2.rst, "Threads").
func (t *Tree) vacate() error {
	leaf := daemonLeaf
	if t.given {
		leaf = keeperLeaf
	}
	pids, err := t.inTheWay("")
	if err != nil {
		return err
	}
	dir := filepath.Join(t.parent, leaf)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for _, pid := range pids {
		if err := put(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("move process %d into %s: %w", pid, dir, err)
		}
	}
	return nil
}

// inTheWay lists what must leave the tree's parent before the controller can be turned on
// there, or why it cannot: only a daemon that is alone, but for its companions, may move itself.
func (t *Tree) inTheWay(controller string) ([]int, error) {
	if turned, err := words(t.parent, subtreeControl); err != nil || slices.Contains(turned, controller) {
		return nil, err
	}
	pids, err := At(t.parent).Processes()
	if err != nil || t.given {
		return pids, err
	}
	for _, pid := range pids {
		if pid != os.Getpid() && !slices.Contains(t.companions, pid) {
			return nil, &tenement.Error{
				Code: tenement.CodeUnavailable, Op: "turn on controllers",
				Err:  fmt.Errorf("other processes than the daemon are in its cgroup %s, such as %d", t.parent, pid),
				Hint: unprovided,
			}
		}
	}
	return pids, nil
}

// notHere is the error about a controller that the tree's parent does not have.
func (t *Tree) notHere(controller string) error {
	e := &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "turn on controllers",
		Err:  fmt.Errorf("the %s controller is not to be had in %s", controller, t.parent),
		Hint: unprovided,
	}
	mount, err := mountPoint()
	if err != nil {
		return e
	}
	if known, err := words(mount, "cgroup.controllers"); err != nil || slices.Contains(known, controller) {
		return e
	}
	e.Hint = "this kernel does not have it: was it built without, or booted with cgroup_disable=" + controller + "?"
	if versionOne(controller) {
		e.Hint = "cgroup version 1 has it on this machine: boot with systemd.unified_cgroup_hierarchy=1"
	}
	return e
}

// versionOne reports whether a hierarchy of version 1 has the controller, and so version
// 2 has not. io is blkio there.
func versionOne(controller string) bool {
	if controller == "io" {
		controller = "blkio"
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if parts := strings.SplitN(line, ":", 3); len(parts) == 3 && slices.Contains(strings.Split(parts[1], ","), controller) {
			return true
		}
	}
	return false
}

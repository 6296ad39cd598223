// Package cgroup keeps one delegated cgroup v2 subtree, in which a process and
// everything it ever starts can be told apart, and ended, as one.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tenement"
)

// Tree is a directory of the cgroup v2 hierarchy that is ours. Its methods may be
// called concurrently.
type Tree struct {
	parent string // the delegated cgroup in which it is
	given  bool   // parent is for tenants alone, as ParentVariable says
	dir    string
	serial atomic.Uint64

	companions []int // processes that move with the daemon

	mu      sync.Mutex
	enabled map[string]bool // the controllers that its groups have
}

// ParentVariable names, in the environment, a delegated cgroup that is for tenants
// alone: the absolute path of its directory. Whatever else is in it is there to keep it
// and is moved into a leaf.
const ParentVariable = "TENEMENT_CGROUP"

// Open makes name below the cgroup that [ParentVariable] names, in which every
// controller is then turned on, or below the calling process's own, in which those are
// that a limit needs; companions are processes besides that may be moved for it.
// CodeUnavailable means that this machine, or this user, has no v2
// hierarchy to write to.
func Open(name string, companions ...int) (*Tree, error) {
	t, err := choose(os.Getenv(ParentVariable))
	if err != nil {
		return nil, unavailable(err)
	}
	t.companions = companions
	t.dir = filepath.Join(t.parent, name)
	if err := os.Mkdir(t.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, unavailable(err)
	}
	if _, err := os.Stat(filepath.Join(t.dir, "cgroup.kill")); err != nil {
		return nil, unavailable(fmt.Errorf("this kernel cannot end a cgroup whole (Linux 5.14 can): %w", err))
	}
	if t.given {
		if err := t.enableAll(); err != nil {
			return nil, unavailable(err)
		}
	}
	probe, err := t.New("probe", tenement.Limits{})
	if err != nil {
		return nil, unavailable(err)
	}
	return t, probe.Remove()
}

// choose says where a tree is to be.
func choose(given string) (*Tree, error) {
	t := &Tree{enabled: make(map[string]bool)}
	if given == "" {
		own, err := Of(os.Getpid())
		t.parent = aboveLeaf(own)
		return t, err
	}
	mount, err := mountPoint()
	if err != nil {
		return nil, err
	}
	t.parent, t.given = filepath.Clean(given), true
	if !strings.HasPrefix(t.parent, mount+"/") {
		return nil, fmt.Errorf("%s=%s is not below %s", ParentVariable, given, mount)
	}
	_, err = os.Stat(filepath.Join(t.parent, "cgroup.procs"))
	return t, err
}

func unavailable(err error) error {
	if tenement.HintOf(err) != "" {
		return err
	}
	return &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "open cgroup", Err: err,
		Hint: "run as root, or under systemd as `ten install` does, or name a delegated cgroup in " + ParentVariable,
	}
}

// Of is the directory of the cgroup that process pid is in (cgroups(7), "/proc files").
func Of(pid int) (string, error) {
	mount, err := mountPoint()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return filepath.Join(mount, path), nil
		}
	}
	return "", fmt.Errorf("process %d is in no cgroup v2", pid)
}

// Mount is where the v2 hierarchy is mounted; an error if it is not.
func Mount() (string, error) { return mountPoint() }

// mountPoint is where the v2 hierarchy is mounted: /sys/fs/cgroup, or
// /sys/fs/cgroup/unified beside version 1 (proc_pid_mountinfo(5)).
var mountPoint = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		before, after, ok := strings.Cut(line, " - ")
		if !ok || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		if fields := strings.Fields(before); len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", errors.New("no cgroup v2 hierarchy is mounted")
})

// Sweep ends everything in the tree and removes its groups, as they were left by a
// process that had the tree before and did not come to its end. A group whose path keep
// says yes to is spared; nil spares none. It waits for what it ended until ctx does; the
// error says what is left.
func (t *Tree) Sweep(ctx context.Context, keep func(path string) bool) error {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return err
	}
	var swept []*Group
	for _, entry := range entries {
		path := filepath.Join(t.dir, entry.Name())
		if !entry.IsDir() || keep != nil && keep(path) {
			continue
		}
		swept = append(swept, At(path))
		err = errors.Join(err, At(path).Kill())
	}
	for _, group := range swept {
		err = errors.Join(err, group.removeOnceEmpty(ctx))
	}
	return err
}

// removeOnceEmpty waits for the end of what was killed in the group.
func (g *Group) removeOnceEmpty(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		populated, err := g.Populated()
		if err != nil {
			return err
		}
		if !populated {
			return g.Remove()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("processes in %s survive SIGKILL", g.dir)
		}
	}
}

// Path is the tree's own directory.
func (t *Tree) Path() string { return t.dir }

// Close removes the tree's own directory, unless something lives in it: that was left
// to whoever opens the tree next. An empty group that nobody removed is an error.
func (t *Tree) Close() error {
	err := os.Remove(t.dir)
	if populated, unread := At(t.dir).Populated(); err != nil && unread == nil && populated {
		return nil
	}
	return err
}

// Group is one cgroup. Every start gets a new one: after Kill, whatever is started
// into the same directory is ended at once.
type Group struct {
	dir   string
	meter meter
}

// New makes an empty group whose directory begins with name, and which holds whatever
// will be in it to l; of l, OpenFiles and Storage are not a cgroup's. A limit that cannot
// be set is CodeUnavailable with a hint, and no group is left.
func (t *Tree) New(name string, l tenement.Limits) (_ *Group, err error) {
	wanted := settings(l)
	if err := t.provide(wanted); err != nil {
		return nil, err
	}
	g := &Group{dir: filepath.Join(t.dir, fmt.Sprintf("%s.%d.%d", name, os.Getpid(), t.serial.Add(1)))}
	err = os.Mkdir(g.dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) && t.given {
		if err = t.renew(wanted); err == nil {
			err = os.Mkdir(g.dir, 0o755)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Remove())
		}
	}()
	for _, s := range wanted {
		if err := s.set(g.dir); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// At is the group at an absolute path that [Group.Path] gave earlier.
func At(path string) *Group { return &Group{dir: path} }

// Path is the group's directory.
func (g *Group) Path() string { return g.dir }

// Open gives the directory for clone3(2) with CLONE_INTO_CGROUP.
func (g *Group) Open() (*os.File, error) { return os.Open(g.dir) }

// Kill sends SIGKILL to everything in the group at once (cgroup-v2.rst, cgroup.kill). A
// group that is gone holds nothing to kill.
func (g *Group) Kill() error {
	err := os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Populated reports whether anything lives in the group. It counts what Processes no
// longer lists, a process on its way out, and while it does the group cannot be
// removed (cgroup-v2.rst, cgroup.events).
func (g *Group) Populated() (bool, error) {
	text, err := os.ReadFile(filepath.Join(g.dir, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return strings.Contains(string(text), "populated 1"), nil
}

// Processes lists the pids in the group; none when the group is gone.
func (g *Group) Processes() ([]int, error) {
	text, err := read(filepath.Join(g.dir, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for word := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("cgroup.procs: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// Remove deletes the empty group; one that is gone already is no error.
func (g *Group) Remove() error {
	g.Close()
	if err := os.Remove(g.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

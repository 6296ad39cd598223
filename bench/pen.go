package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tenement/bench/measure"
	"tenement/internal/cgroup"
)

// pen is a cgroup of the run's own, in which is all that it starts and all that daemons
// start in turn, so that nothing can be left behind. Without one (not root, no cgroup
// v2) what is left is looked for by the run's directory, which command lines name.
type pen struct {
	dir    string // the run's directory
	cgroup string // "" without one
	before string // the cgroup that we were in
}

// enter makes the pen and goes into it.
func enter(dir string) (*pen, error) {
	p := &pen{dir: dir}
	before, err := cgroup.Of(os.Getpid())
	if err != nil {
		return p, nil //nolint:nilerr // there is no cgroup v2
	}
	own := filepath.Join(before, filepath.Base(dir))
	if os.Mkdir(own, 0o755) != nil {
		return p, nil // not ours to divide
	}
	p.cgroup, p.before = own, before
	return p, move(own)
}

// move puts this process into a cgroup.
func move(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}

// empty ends what still runs, which is an error that names it, and removes the pen.
func (p *pen) empty() error {
	if p.cgroup == "" {
		return kill(measure.Naming(p.dir))
	}
	if err := move(p.before); err != nil {
		return err
	}
	pids, dirs, err := p.members()
	if err != nil {
		return err
	}
	left := kill(pids)
	slices.Reverse(dirs) // those below first
	for _, dir := range dirs {
		left = errors.Join(left, removeEmptied(dir))
	}
	return left
}

// members are the processes in the pen, and its directories from the top.
func (p *pen) members() (pids []int, dirs []string, err error) {
	err = filepath.WalkDir(p.cgroup, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		dirs = append(dirs, path)
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
		return err
	})
	return pids, dirs, err
}

func kill(pids []int) error {
	var failed error
	for _, pid := range pids {
		err := syscall.Kill(pid, syscall.SIGKILL)
		if !errors.Is(err, syscall.ESRCH) {
			failed = errors.Join(failed, fmt.Errorf("process %d was left behind, and killed", pid), err)
		}
	}
	return failed
}

// removeEmptied removes a cgroup whose last process may be about to end.
func removeEmptied(dir string) error {
	for end := time.Now().Add(10 * time.Second); ; measure.Nap(time.Millisecond) {
		err := os.Remove(dir)
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

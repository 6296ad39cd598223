package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// OOMKills is how many processes of the group the kernel has killed because memory was
// short, its own or the machine's. 0 without the memory controller, or when the group is
// gone.
func (g *Group) OOMKills() (int, error) {
	n, _, err := g.number("memory.events", "oom_kill")
	return int(n), err
}

// PIDRefusals is how often the group was at its limit of processes when one of them
// wanted another. 0 without the pids controller, or when the group is gone.
func (g *Group) PIDRefusals() (int, error) {
	n, _, err := g.number("pids.events", "max")
	return int(n), err
}

// number is the value after key in a file of keys and values, or the one value of the
// file with key "". False: the group does not have it.
func (g *Group) number(file, key string) (int64, bool, error) {
	list, err := words(g.dir, file)
	if err != nil {
		return 0, false, err
	}
	return valueOf(list, key)
}

// valueOf is number for a file that was read.
func valueOf(list []string, key string) (int64, bool, error) {
	if key == "" && len(list) == 1 {
		n, err := strconv.ParseInt(list[0], 10, 64)
		return n, err == nil, err
	}
	for i := 0; i+1 < len(list); i += 2 {
		if list[i] == key {
			n, err := strconv.ParseInt(list[i+1], 10, 64)
			return n, err == nil, err
		}
	}
	return 0, false, nil
}

// freezeWait bounds the time until everything in a group stands still. It takes an
// instant, unless a process is in uninterruptible sleep.
const freezeWait = 5 * time.Second

// Freeze stops everything in the group, and returns when all of it stands still; a
// group that does not within 5 s, or until ctx ends, is thawed again. What is frozen can
// still be killed.
func (g *Group) Freeze(ctx context.Context) error {
	if err := put(g.dir, "cgroup.freeze", "1"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, freezeWait, fmt.Errorf("processes in %s do not freeze within %s", g.dir, freezeWait))
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		frozen, _, err := g.number("cgroup.events", "frozen")
		switch {
		case err != nil:
			return errors.Join(err, g.Thaw())
		case frozen == 1:
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), g.Thaw())
		}
	}
}

// Thaw lets everything in the group run again, at once; one that is gone is no error.
func (g *Group) Thaw() error {
	err := put(g.dir, "cgroup.freeze", "0")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Frozen reports whether the group was told to stand still, by whichever process.
func (g *Group) Frozen() (bool, error) {
	n, _, err := g.number("cgroup.freeze", "")
	return n == 1, err
}

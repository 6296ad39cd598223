package runtime

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"tenement"
	"tenement/internal/cgroup"
)

// Freeze implements [Process]. Without a cgroup, what has left the process group goes on.
func (p *hostProcess) Freeze(ctx context.Context) error {
	if p.at.freeze != nil {
		return p.at.freeze()
	}
	if p.group != nil {
		return p.group.Freeze(ctx)
	}
	if err := p.handle.signalGroup(syscall.SIGSTOP); err != nil {
		return ignoreGone(err)
	}
	if err := p.handle.awaitStop(ctx); err != nil {
		return errors.Join(err, p.Thaw())
	}
	return nil
}

// Thaw implements [Process].
func (p *hostProcess) Thaw() error {
	if p.at.thaw != nil {
		return p.at.thaw()
	}
	if p.group != nil {
		return p.group.Thaw()
	}
	return ignoreGone(p.handle.signalGroup(syscall.SIGCONT))
}

// Frozen implements [Process]. Without a cgroup a program that stops itself seems to be.
func (p *hostProcess) Frozen() bool {
	if p.at.frozen != nil {
		return p.at.frozen()
	}
	if p.group == nil {
		return p.handle.stopped()
	}
	frozen, err := p.group.Frozen()
	if err != nil {
		p.host.log.Warn("cannot tell whether a process is frozen", "pid", p.ref.PID, "error", err)
	}
	return frozen
}

// Usage implements [Process]. Without a cgroup it is that of the process group, and what
// has ended in it, or joined it within the last second, is not counted.
func (p *hostProcess) Usage() (tenement.Usage, error) {
	if p.group != nil {
		return p.group.Usage()
	}
	pids, err := p.host.groups.of(p.ref.PID)
	if err != nil {
		return tenement.Usage{}, err
	}
	return tenement.Usage{CPU: processorTime(pids), Memory: cgroup.Resident(pids)}, nil
}

// groupsAge is how long it is believed who is in which process group: to find that out
// reads a file for each process of the machine, and a thousand may be measured in a row.
const groupsAge = time.Second

// groupTable is who is in which process group. It is safe for concurrent use.
type groupTable struct {
	mu   sync.Mutex
	read time.Time
	pids map[int][]int
}

// of lists the members of leader's group; of one that has just begun the leader alone.
func (t *groupTable) of(leader int) ([]int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.read) >= groupsAge {
		pids, err := processGroups()
		if err != nil {
			return nil, err
		}
		t.pids, t.read = pids, time.Now()
	}
	if pids := t.pids[leader]; len(pids) > 0 {
		return pids, nil
	}
	return []int{leader}, nil
}

// killedStatus is what a shell, and what does as shells do, says of a command that was
// ended by SIGKILL (sh(1), 128 and the signal).
const killedStatus = 128 + int(syscall.SIGKILL)

// endedByKill reports whether an end can be that of a tree of which something was killed.
// A server whose worker was killed long ago may have gone on without it.
func endedByKill(e tenement.Exit) bool {
	return !e.Known || e.Signal == syscall.SIGKILL.String() || e.Status == killedStatus
}

// explainEnd says of a process that nobody saw end whether it was for want of memory, as
// long as its cgroup still tells.
func explainEnd(err error, ref tenement.Ref) error {
	var e *tenement.Error
	if ref.Cgroup == "" || ref.BootID != BootID() || !errors.As(err, &e) || e.Code != tenement.CodeNotFound {
		return err
	}
	if kills, unread := cgroup.At(ref.Cgroup).OOMKills(); unread == nil && kills > 0 {
		e.Err = errors.Join(e.Err, tenement.ErrOutOfMemory)
	}
	return err
}

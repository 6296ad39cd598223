package runtime

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// members lists the processes of the process group that the process leads.
func (h *handle) members() ([]int, error) {
	groups, err := processGroups()
	return groups[h.pid], err
}

// processGroups lists the processes of every process group, by its leader. It reads a file
// for each process of the machine.
func processGroups() (map[int][]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	groups := make(map[int][]int)
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		fields := statFields(pid)
		if len(fields) <= statGroup {
			continue // it has ended
		}
		if group, err := strconv.Atoi(fields[statGroup]); err == nil {
			groups[group] = append(groups[group], pid)
		}
	}
	return groups, nil
}

// stopped reports whether the main process was stopped by a signal.
func (h *handle) stopped() bool {
	fields := statFields(h.pid)
	return len(fields) > 0 && fields[0] == "T"
}

// stopWait bounds the time until every thread of a process group has stopped.
const stopWait = 5 * time.Second

// awaitStop waits until everything in the process group stands still: each thread stops
// when it runs next.
func (h *handle) awaitStop(ctx context.Context) error {
	pids, err := h.members()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, stopWait, fmt.Errorf("processes of the group of pid %d do not stop within %s", h.pid, stopWait))
	defer cancel()
	if !until(ctx, func() bool { return !slices.ContainsFunc(pids, runs) }) {
		return context.Cause(ctx)
	}
	return nil
}

// runs reports whether a thread of pid is neither stopped nor at its end.
func runs(pid int) bool {
	threads, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/[0-9]*/stat")
	if err != nil {
		return false // the pattern is good
	}
	return slices.ContainsFunc(threads, func(path string) bool {
		text, err := os.ReadFile(path)
		_, rest, _ := cutLast(string(text), ") ")
		return err == nil && rest != "" && !strings.ContainsRune("TtZX", rune(rest[0]))
	})
}

// Fields of proc_pid_stat(5), counted from the third.
const (
	statGroup  = 5 - 3
	statUser   = 14 - 3
	statSystem = 15 - 3
)

// userHertz is what the clock ticks of proc_pid_stat(5) are of a second, on every Linux.
const userHertz = 100

// processorTime is how long processes have run, all together.
func processorTime(pids []int) time.Duration {
	var ticks uint64
	for _, pid := range pids {
		fields := statFields(pid)
		if len(fields) <= statSystem {
			continue // it has ended
		}
		user, _ := strconv.ParseUint(fields[statUser], 10, 64)
		system, _ := strconv.ParseUint(fields[statSystem], 10, 64)
		ticks += user + system
	}
	return time.Duration(ticks) * time.Second / userHertz
}

// statFields are those from the third on; none of a process that is gone.
func statFields(pid int) []string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	_, rest, _ := cutLast(string(text), ") ")
	return strings.Fields(rest)
}

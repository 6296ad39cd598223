package runtime

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// members lists the processes of the process group that the process leads.
func (h *handle) members() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if fields := statFields(pid); len(fields) > statGroup && fields[statGroup] == strconv.Itoa(h.pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
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

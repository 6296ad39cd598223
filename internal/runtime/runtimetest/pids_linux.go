package runtimetest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tenement"
	"tenement/internal/rootless"
)

// numberInside is the pid that a process has in its own pid namespace.
func numberInside(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0 // it is gone
	}
	for line := range strings.Lines(string(text)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(numbers)
			number, _ := strconv.Atoi(fields[len(fields)-1])
			return number
		}
	}
	return 0
}

// numberOutside is the pid of what a tenant, by its own account, has started.
func numberOutside(ref tenement.Ref, inside int) int {
	if !rootless.Inside() {
		return inside // where there is a pid namespace, it is a sandbox's
	}
	text, _ := os.ReadFile(filepath.Join(ref.Cgroup, "cgroup.procs"))
	for word := range strings.FieldsSeq(string(text)) {
		if pid, _ := strconv.Atoi(word); numberInside(pid) == inside {
			return pid
		}
	}
	return 0
}

// Package measure reads from the kernel what processes cost: time of processors and
// memory, and what machine it is.
package measure

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of /proc/PID/stat, USER_HZ, which is the same on every architecture
// that Go knows.
const tick = 10 * time.Millisecond

// CPU is what processes have used of processors until now, in user mode and in the
// kernel, all their threads together. A process that has gone counts nothing.
func CPU(pids []int) time.Duration {
	var sum time.Duration
	for _, pid := range pids {
		fields := stat(pid)
		if len(fields) < 13 {
			continue
		}
		for _, field := range fields[11:13] { // utime and stime
			n, err := strconv.ParseInt(field, 10, 64)
			if err == nil {
				sum += time.Duration(n) * tick
			}
		}
	}
	return sum
}

// stat is the fields of /proc/PID/stat from the third on, the state: the second, the
// program's name, may contain anything (proc_pid_stat(5)).
func stat(pid int) []string {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// Tree is root and all the processes that it started, directly or not.
func Tree(root int) []int {
	children := make(map[int][]int)
	for _, pid := range processes() {
		if fields := stat(pid); len(fields) > 1 {
			if parent, err := strconv.Atoi(fields[1]); err == nil {
				children[parent] = append(children[parent], pid)
			}
		}
	}
	tree := []int{root}
	for n := 0; n < len(tree); n++ {
		tree = append(tree, children[tree[n]]...)
	}
	return tree
}

func processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Naming are the processes whose program or command line has text in it, other than
// this one.
func Naming(text string) []int {
	var found []int
	for _, pid := range processes() {
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline")) // gone: it names nothing
		program, _ := os.Readlink(filepath.Join(dir, "exe"))
		if pid != os.Getpid() && strings.Contains(program+" "+string(line), text) {
			found = append(found, pid)
		}
	}
	return found
}

// Memory is what processes have of the machine's, in bytes. What several have together
// is divided among them in PSS, and counted for each in RSS.
type Memory struct{ PSS, RSS int64 }

// MemoryOf sums smaps_rollup. A process that has gone counts nothing.
func MemoryOf(pids []int) (Memory, error) {
	var sum Memory
	for _, pid := range pids {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) { // the latter: not waited for yet
			continue
		}
		if err != nil {
			return sum, fmt.Errorf("read the memory of process %d: %w", pid, err)
		}
		sum.PSS += kilobytes(text, "Pss:")
		sum.RSS += kilobytes(text, "Rss:")
	}
	return sum, nil
}

// kilobytes reads a line like "Pss:    123 kB", in bytes; 0 if there is none.
func kilobytes(text []byte, name string) int64 {
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) >= 2 && fields[0] == name {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err == nil {
				return n << 10
			}
		}
	}
	return 0
}

// Available is how much memory programs can have without anything else having to go.
func Available() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return kilobytes(text, "MemAvailable:")
}

// Package memory says how much memory can still be had, and when programs wait for it.
package memory

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tenement"
)

// Available is what new programs can have without swapping: of the machine, and no more
// than the limits leave of the cgroup whose directory is group and of those above it up
// to root, where the hierarchy is mounted. With an empty group the machine alone counts.
// An error means that it cannot be known, as on a system that is not Linux.
func Available(root, group string) (tenement.Bytes, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "measure memory", Err: err,
			Hint: "memory_reserve_mb needs Linux's /proc/meminfo: leave it out",
		}
	}
	available, err := machine(string(text))
	if err != nil || group == "" {
		return available, err
	}
	rest, err := headroom(root, group)
	return min(available, rest), err
}

// machine reads MemAvailable (proc_meminfo(5)).
func machine(meminfo string) (tenement.Bytes, error) {
	kilobytes, ok, err := field(meminfo, "MemAvailable:")
	if err != nil || !ok {
		return 0, errors.Join(errors.New("/proc/meminfo has no MemAvailable"), err)
	}
	return kilobytes << 10, nil
}

// headroom is the least that any group from group up to root leaves. What a group keeps
// of files that nobody uses is not taken for used: the kernel drops it first.
func headroom(root, group string) (tenement.Bytes, error) {
	least := tenement.Bytes(math.MaxInt64)
	for dir := group; dir == root || strings.HasPrefix(dir, root+"/"); dir = filepath.Dir(dir) {
		limit, err := limitOf(dir)
		if err != nil {
			return 0, err
		}
		if limit == math.MaxInt64 {
			continue
		}
		used, err := used(dir)
		if err != nil {
			return 0, err
		}
		least = min(least, max(limit-used, 0))
	}
	return least, nil
}

// limitOf is the lower one of memory.max and memory.high, at which the kernel slows the
// group down; math.MaxInt64 where there is none (cgroup-v2.rst, "Memory Interface Files").
func limitOf(dir string) (tenement.Bytes, error) {
	limit := tenement.Bytes(math.MaxInt64)
	for _, name := range []string{"memory.max", "memory.high"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // no memory controller here
		}
		if err != nil {
			return 0, err
		}
		if word := strings.TrimSpace(string(text)); word != "max" {
			n, err := strconv.ParseInt(word, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s/%s: %w", dir, name, err)
			}
			limit = min(limit, tenement.Bytes(n))
		}
	}
	return limit, nil
}

func used(dir string) (tenement.Bytes, error) {
	text, err := os.ReadFile(filepath.Join(dir, "memory.current"))
	if err != nil {
		return 0, err
	}
	current, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s/memory.current: %w", dir, err)
	}
	stat, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return 0, err
	}
	cached, _, err := field(string(stat), "inactive_file")
	return tenement.Bytes(current) - cached, err
}

// field is the number after name at the beginning of a line; ok is false without one.
func field(text, name string) (n tenement.Bytes, ok bool, err error) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != name {
			continue
		}
		number, err := strconv.ParseInt(words[1], 10, 64)
		return tenement.Bytes(number), true, err
	}
	return 0, false, nil
}

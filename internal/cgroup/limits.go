package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tenement"
)

// setting is one limit as the kernel has it (cgroup-v2.rst).
type setting struct {
	key        string // of the configuration
	controller string
	write      func(dir string) error
}

// cpuPeriod is the time, in microseconds, over which a share of a core is counted. It is
// the kernel's own default: longer ones let a tenant run dry for longer, shorter ones
// cost more switches.
const cpuPeriod = 100_000

// settings are those that l asks for.
func settings(l tenement.Limits) []setting {
	var list []setting
	add := func(wanted bool, s setting) {
		if wanted {
			list = append(list, s)
		}
	}
	add(l.Memory > 0, setting{"memory_limit_mb", "memory", func(dir string) error { return limitMemory(dir, l.Memory) }})
	add(l.CPUShares > 0, setting{"cpu_shares", "cpu", func(dir string) error {
		return put(dir, "cpu.weight", strconv.Itoa(l.CPUShares))
	}})
	add(l.CPU > 0, setting{"cpu_limit", "cpu", func(dir string) error {
		return put(dir, "cpu.max", fmt.Sprintf("%.0f %d", l.CPU*cpuPeriod, cpuPeriod))
	}})
	add(l.PIDs > 0, setting{"pids_limit", "pids", func(dir string) error {
		return put(dir, "pids.max", strconv.Itoa(l.PIDs))
	}})
	add(l.IOWeight > 0, setting{"io_weight", "io", func(dir string) error { return weighIO(dir, l.IOWeight) }})
	return list
}

// set gives the group at dir the limit.
func (s setting) set(dir string) error {
	err := s.write(dir)
	if err == nil {
		return nil
	}
	e := s.unavailable(err)
	if errors.Is(err, fs.ErrNotExist) {
		e.Hint = fmt.Sprintf("this kernel was built, or booted, without it: leave %s away, or use another kernel", s.key)
	}
	return e
}

func (s setting) unavailable(err error) *tenement.Error {
	return &tenement.Error{Code: tenement.CodeUnavailable, Op: "set " + s.key, Err: err}
}

// limitMemory bounds memory and swap together: what does not fit into memory is not
// moved to the disk. Of a tree that has used up its limit nothing stays, for a server
// without one of its processes is no better than none.
func limitMemory(dir string, limit tenement.Bytes) error {
	err := errors.Join(
		put(dir, "memory.max", strconv.FormatInt(int64(limit), 10)),
		put(dir, "memory.oom.group", "1"),
	)
	swap := put(dir, "memory.swap.max", "0")
	if errors.Is(swap, fs.ErrNotExist) && !swaps() {
		swap = nil
	}
	return errors.Join(err, swap)
}

// swaps reports whether this kernel can move memory to a disk.
func swaps() bool {
	_, err := os.Stat("/proc/swaps")
	return err == nil
}

// weighIO sets the weight for every scheduler of the disks that knows one.
func weighIO(dir string, weight int) error {
	err := put(dir, "io.weight", strconv.Itoa(weight))
	bfq := put(dir, "io.bfq.weight", strconv.Itoa(bfqWeight(weight)))
	switch {
	case errors.Is(bfq, fs.ErrNotExist):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return bfq
	}
	return errors.Join(err, bfq)
}

// bfqWeight brings a weight from 1 to 10,000 into BFQ's bounds, 1 to 1,000, so that 100
// stays the default of both.
func bfqWeight(weight int) int {
	if weight <= 100 {
		return weight
	}
	return 100 + (weight-100)*900/9900
}

// put writes one file of a group, which the kernel has made or does not have.
func put(dir, name, value string) error {
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(value)
	return errors.Join(err, file.Close())
}

// words are those of one file of a group; none if it is not there.
func words(dir, name string) ([]string, error) {
	text, err := read(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(text)), err
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"tenement/internal/runtime"
)

// What one awake instance takes of the machine, about: log pipes, a process handle
// and a few connections on our side; a process with a dozen threads on its own.
const (
	filesPerInstance = 10
	tasksPerInstance = 12
	filesOfDaemon    = 100
)

// fewInstances is the number of awake instances that a small server's memory holds
// anyway; a limit below it is worth a warning.
const fewInstances = 1000

// bound is a limit of this machine that bounds how many instances can be awake.
type bound struct {
	name      string
	instances uint64 // that there is room for
	detail    string
	hint      string
}

// checkDensity lists what bounds the number of awake instances, the tightest first.
func checkDensity(context.Context, *examination) []finding {
	files, err := boundByFiles()
	if err != nil {
		return failed(err)
	}
	bounds, err := platformBounds()
	var findings []finding
	if err != nil {
		findings = failed(err)
	}
	bounds = append(bounds, files)
	slices.SortStableFunc(bounds, func(a, b bound) int { return cmp.Compare(a.instances, b.instances) })
	for _, b := range bounds {
		findings = append(findings, b.finding())
	}
	return findings
}

func (b bound) finding() finding {
	f := finding{Check: b.name, Verdict: verdictOK, Detail: fmt.Sprintf("%s: room for about %d awake instances", b.detail, b.instances)}
	if b.instances < fewInstances {
		f.Verdict, f.Hint = verdictWarn, b.hint
	}
	return f
}

func boundByFiles() (bound, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return bound{}, err
	}
	// Go raises the soft limit to the hard one when a program starts.
	room := max(uint64(limit.Max), filesOfDaemon) - filesOfDaemon
	return bound{
		"open files", room / filesPerInstance, fmt.Sprintf("at most %d (soft limit %d)", limit.Max, limit.Cur),
		"raise the hard limit: ulimit -Hn, or LimitNOFILE= in the daemon's unit",
	}, nil
}

// portRange reads the two ports of ip_local_port_range.
func portRange(text string) (first, last int, err error) {
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return 0, 0, fmt.Errorf("%q is not a range of ports", text)
	}
	if first, err = strconv.Atoi(fields[0]); err != nil {
		return 0, 0, err
	}
	last, err = strconv.Atoi(fields[1])
	return first, last, err
}

// portFinding judges the kernel's range for outgoing connections beside ours.
func portFinding(first, last int) []finding {
	if first <= runtime.LastPort && last >= runtime.FirstPort {
		return found(verdictWarn, fmt.Sprintf("outgoing connections use ports from %d to %d, and tenants those from %d to %d", first, last, runtime.FirstPort, runtime.LastPort),
			"keep them apart: sysctl -w net.ipv4.ip_local_port_range='32768 60999'")
	}
	return found(verdictOK, fmt.Sprintf("%d for tenants, apart from those for outgoing connections", runtime.LastPort-runtime.FirstPort+1), "")
}

// wholeNumber reads a file of the kernel with one number in it.
func wholeNumber(text string) (uint64, error) {
	return strconv.ParseUint(strings.TrimSpace(text), 10, 64)
}

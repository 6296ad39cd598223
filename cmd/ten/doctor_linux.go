package main

import (
	"context"
	"fmt"
	"os"

	"tenement"
	"tenement/internal/cgroup"
)

// fewWatchers is the kernel's default, which a few programs that watch their own
// files use up.
const fewWatchers = 128

var platformChecks = []check{
	{"processes", checkTasks},
	{"file watchers", checkWatchers},
	{"ports", checkPorts},
	{"cgroups", checkCgroups},
	{"sandbox", checkSandbox},
}

func checkTasks(context.Context, *examination) []finding {
	n, err := kernelNumber("/proc/sys/kernel/pid_max")
	if err != nil {
		return failed(err)
	}
	return allows(n/tasksPerInstance, fmt.Sprintf("at most %d processes and threads", n), "sysctl -w kernel.pid_max=4194304")
}

func checkWatchers(context.Context, *examination) []finding {
	n, err := kernelNumber("/proc/sys/fs/inotify/max_user_instances")
	if err != nil {
		return failed(err)
	}
	detail := fmt.Sprintf("%d at once for all tenants, who run as one user", n)
	if n <= fewWatchers {
		return found(verdictWarn, detail+"; programs that reload themselves take one or more each", "sysctl -w fs.inotify.max_user_instances=8192")
	}
	return found(verdictOK, detail, "")
}

func checkPorts(context.Context, *examination) []finding {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return failed(err)
	}
	first, last, err := portRange(string(text))
	if err != nil {
		return failed(err)
	}
	return portFinding(first, last)
}

// checkCgroups warns only: without them a process tree is ended by its group, and
// what left the group stays. It tries what the daemon would do, as the user who asks.
func checkCgroups(context.Context, *examination) []finding {
	tree, err := cgroup.Open(fmt.Sprintf("tenement-doctor-%d", os.Getpid()))
	if err == nil {
		err = tree.Close()
	}
	if err != nil {
		return found(verdictWarn, fmt.Sprintf("%v; what a tenant starts in another process group outlives it", err), tenement.HintOf(err))
	}
	return found(verdictOK, "the whole tree of a tenant's process can be ended", "")
}

func kernelNumber(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := wholeNumber(string(text))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return n, nil
}

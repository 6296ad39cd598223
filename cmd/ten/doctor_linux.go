package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tenement"
	"tenement/internal/cgroup"
	"tenement/internal/listening"
	"tenement/internal/runtime"
)

var platformChecks = []check{
	{"ports", checkPorts},
	{"cgroups", checkCgroups},
	{"readiness", checkReadiness},
	{"limits", checkControllers},
	{"disk weights", checkDiskWeights},
	{"namespaces", checkNamespaces},
	{"sandbox", checkSandbox},
	{"firewall", checkFirewall},
}

// What one awake instance takes of the kernel, about, with the namespaces of its own that
// all but `process` isolation give it.
const (
	connectionsPerInstance = 50 // tracked ones, some of which have ended
	neighboursPerInstance  = 2  // it and its gateway, each in the other's table
	watchersPerInstance    = 1  // of a program that watches its own files
)

// kernelBound is a number of the kernel's that bounds how many instances can be awake.
type kernelBound struct {
	name   string
	files  []string // below /proc/sys, the smallest of which counts; those missing bound nothing
	each   uint64   // that one instance takes
	detail string   // with one number
	hint   string
}

var kernelBounds = []kernelBound{
	{
		"processes",
		[]string{"kernel/pid_max", "kernel/threads-max"},
		tasksPerInstance, "at most %d processes and threads", "sysctl -w kernel.pid_max=4194304 kernel.threads-max=4194304",
	},
	{
		"file watchers",
		[]string{"fs/inotify/max_user_instances"},
		watchersPerInstance, "at most %d inotify instances for each user, who all tenants of isolation \"process\" are; should every program watch its own files", "sysctl -w fs.inotify.max_user_instances=8192",
	},
	{
		"tracked connections",
		[]string{"net/netfilter/nf_conntrack_max"},
		connectionsPerInstance, "at most %d of them, of tenants with a network of their own", "sysctl -w net.netfilter.nf_conntrack_max=1048576",
	},
	{
		"neighbours",
		[]string{"net/ipv4/neigh/default/gc_thresh3"},
		neighboursPerInstance, "at most %d of them, of tenants with a network of their own", "sysctl -w net.ipv4.neigh.default.gc_thresh3=65536",
	},
	{
		"namespaces",
		[]string{"user/max_mnt_namespaces", "user/max_net_namespaces", "user/max_ipc_namespaces", "user/max_uts_namespaces"},
		1, "at most %d of each kind", "sysctl -w user.max_net_namespaces=1000000, and so for mnt, ipc and uts",
	},
}

func platformBounds() ([]bound, error) {
	bounds := []bound{{
		"tenants' ports", runtime.LastPort - runtime.FirstPort + 1,
		"those that tenants of isolation \"process\" listen on", "choose another isolation, whose tenants have ports of their own",
	}}
	var failed error
	for _, k := range kernelBounds {
		n, known, err := k.smallest()
		failed = errors.Join(failed, err)
		if known {
			bounds = append(bounds, bound{k.name, n / k.each, fmt.Sprintf(k.detail, n), k.hint})
		}
	}
	return bounds, failed
}

func (k kernelBound) smallest() (least uint64, known bool, failed error) {
	for _, name := range k.files {
		n, err := kernelNumber("/proc/sys/" + name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			failed = errors.Join(failed, err)
		case !known || n < least:
			least, known = n, true
		}
	}
	return least, known, failed
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

// checkReadiness tries what the daemon would do to notice at once that a tenant listens.
func checkReadiness(context.Context, *examination) []finding {
	err := tryListening()
	if err != nil {
		return found(verdictWarn, fmt.Sprintf("a program that starts is asked every millisecond whether it listens: %v", err), tenement.HintOf(err))
	}
	return found(verdictOK, "the kernel tells when a program listens", "")
}

func tryListening() error {
	tree, err := cgroup.Open(fmt.Sprintf("tenement-doctor-%d", os.Getpid()))
	if err != nil {
		return err
	}
	events, err := listening.Open(tree.Path())
	if err == nil {
		err = events.Close()
	}
	return errors.Join(err, tree.Close())
}

// checkControllers looks where the daemon of `ten install` has its tenants, or else where
// one would that is started here. What a service of the configuration needs and cannot
// have is a failure: it would not start.
func checkControllers(_ context.Context, e *examination) []finding {
	missing, where, err := missingControllers()
	if err != nil {
		missing = make(map[string]error)
		for _, controller := range cgroup.Controllers() {
			missing[controller] = err
		}
	}
	have := slices.DeleteFunc(cgroup.Controllers(), func(c string) bool { return missing[c] != nil })
	var findings []finding
	if len(have) > 0 {
		findings = found(verdictOK, strings.Join(have, ", ")+" are kept by the kernel, "+where, "")
	}
	for _, controller := range slices.Sorted(maps.Keys(missing)) {
		findings = append(findings, lacks(e, controller, missing[controller]))
	}
	return findings
}

func missingControllers() (missing map[string]error, where string, err error) {
	if mount, err := cgroup.Mount(); err == nil {
		unit := filepath.Join(mount, sliceUnit, tenantsUnit)
		if _, err := os.Stat(unit); err == nil {
			return cgroup.MissingIn(unit), "in " + unit, nil
		}
	}
	tree, err := cgroup.Open(fmt.Sprintf("tenement-doctor-%d", os.Getpid()))
	if err != nil {
		return nil, "", err
	}
	return tree.Missing(), "for a daemon started here", tree.Close()
}

// limitsOf says which limits each controller keeps.
var limitsOf = map[string]struct {
	keys  string
	asked func(tenement.Limits) bool
}{
	"cpu":    {"cpu_shares and cpu_limit", func(l tenement.Limits) bool { return l.CPUShares > 0 || l.CPU > 0 }},
	"io":     {"io_weight", func(l tenement.Limits) bool { return l.IOWeight > 0 }},
	"memory": {"memory_limit_mb", func(l tenement.Limits) bool { return l.Memory > 0 }},
	"pids":   {"pids_limit", func(l tenement.Limits) bool { return l.PIDs > 0 }},
}

// lacks is the finding about one controller that is not there.
func lacks(e *examination, controller string, why error) finding {
	limits := limitsOf[controller]
	f := finding{Verdict: verdictWarn, Detail: fmt.Sprintf("a service with %s does not start: %v", limits.keys, why), Hint: tenement.HintOf(why)}
	if names := servicesWith(e, limits.asked); len(names) > 0 {
		f.Verdict = verdictFail
		f.Detail = fmt.Sprintf("%s does not start, for its %s: %v", strings.Join(names, ", "), limits.keys, why)
	}
	return f
}

// servicesWith are those whose limits ask for something.
func servicesWith(e *examination, asked func(tenement.Limits) bool) []string {
	var names []string
	if e.config == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(e.config.Services)) {
		if asked(e.config.Services[name].Limits) {
			names = append(names, name)
		}
	}
	return names
}

// checkDiskWeights: a weight can be set though no disk heeds it.
func checkDiskWeights(_ context.Context, e *examination) []finding {
	switch names := servicesWith(e, limitsOf["io"].asked); {
	case weighedDisk():
		return found(verdictOK, "io_weight counts at a disk of this machine", "")
	case len(names) > 0:
		return found(verdictWarn, "no disk of this machine heeds the io_weight of "+strings.Join(names, ", "), weighHint)
	}
	return found(verdictOK, "no disk of this machine heeds io_weight, and no service has one", "")
}

const weighHint = "for the disk sda: echo bfq >/sys/block/sda/queue/scheduler, or turn on io.cost.qos (cgroup-v2.rst)"

// weighedDisk reports whether a disk's scheduler knows weights.
func weighedDisk() bool {
	if mount, err := cgroup.Mount(); err == nil {
		text, err := os.ReadFile(filepath.Join(mount, "io.cost.qos"))
		if err == nil && strings.Contains(string(text), "enable=1") {
			return true
		}
	}
	disks, _ := filepath.Glob("/sys/block/*/queue/scheduler") // the pattern is good
	return slices.ContainsFunc(disks, func(path string) bool {
		text, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(text), "[bfq]")
	})
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

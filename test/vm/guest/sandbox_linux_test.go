package guest

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSandbox: what a program in a sandbox uses is bounded as with everything else, also
// below the installed unit, whose restrictions the sandbox and its helpers inherit.
func TestSandbox(t *testing.T) {
	steps(t,
		step{"the suite of this kernel", runsSandboxSuite},
		step{"install", installsSandbox},
		step{"limits are set", readsSandboxLimits},
		step{"its processes have no rights", hasOnlyNobodies},
		step{"open_files_limit", opensFilesInSandbox},
		step{"pids_limit", forksInSandbox},
		step{"the daemon is killed and upgraded", adoptsSandbox},
		step{"the daemon is stopped", stopsSandbox},
		step{"memory", takesMemoryInSandbox},
		step{"uninstall", uninstallsSandbox},
	)
}

var sandboxConfiguration = `[settings]
domain = "localhost"

[service.boxed]
command = "` + tenantProgram + ` tenant-program"
isolation = "sandbox"
health = "/health"
idle_timeout = 0
startup_timeout = 120
request_timeout = 120
memory_limit_mb = 128
cpu_shares = 250
cpu_limit = 1.5
pids_limit = 96
io_weight = 350
open_files_limit = 64

[instances]
boxed = ["alice"]
`

// sandboxTests are those of the conformance suite that limits and their cgroup have to do
// with: each start of a sandbox takes seconds on an emulated processor.
const sandboxTests = "freeze_and_thaw|kill_ends_what_is_frozen|usage|out_of_memory|a_child_out_of_memory|processes|share_of_the_processor|weights|adopt_what_was_detached"

func runsSandboxSuite(t *testing.T) {
	if err := os.Rename(filepath.Join(payload, "runsc"), "/usr/local/bin/runsc"); err != nil {
		t.Fatal(err)
	}
	below := keepsSuites(t)
	suite(t, "runtime.test", "^TestSandbox$$/^("+sandboxTests+")$$", "root,cgroup,controllers,runsc", below)
	run(t, "systemctl", "stop", "suite-keeper")
}

func installsSandbox(t *testing.T) {
	write(t, tenantProgram, string(must(os.ReadFile(filepath.Join(payload, "runtime.test")))), 0o755)
	write(t, configFile, sandboxConfiguration, 0o644)
	run(t, payload+"/ten", "install")
	if text := run(t, ten, "doctor"); !strings.Contains(text, "sandbox: /usr/local/bin/runsc") {
		t.Errorf("ten doctor:\n%s", text)
	}
	began := time.Now()
	answers(t)
	t.Logf("measured: a sandbox woke in %s", time.Since(began).Round(100*time.Millisecond))
}

// answers wants the program to, as the first process of a kernel of its own.
func answers(t *testing.T) {
	t.Helper()
	if status, text, err := demand(t, "boxed", "/pid", patience); err != nil || status != http.StatusOK || text != "1" {
		t.Fatalf("it answers %d %s %v", status, text, err)
	}
}

// boxGroup is the cgroup of the sandbox, as the machine knows it.
func boxGroup(t *testing.T) string {
	t.Helper()
	text := string(must(os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", inspect(t, "boxed").PID))))
	group := strings.TrimSpace(strings.TrimPrefix(text, "0::"))
	if unit := property(t, keeper, "ControlGroup"); !strings.HasPrefix(group, unit+"/") {
		t.Fatalf("it is in %s, and not below %s", group, unit)
	}
	return "/sys/fs/cgroup" + group
}

func readsSandboxLimits(t *testing.T) {
	group := boxGroup(t)
	for file, want := range map[string]string{
		"memory.max": "134217728", "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "96",
		"cpu.weight": "250", "cpu.max": "150000 100000", "io.weight": "default 350",
	} {
		if file == "memory.swap.max" && !exists(filepath.Join(group, file)) {
			continue // a kernel without swap
		}
		if got := strings.TrimSpace(string(must(os.ReadFile(filepath.Join(group, file))))); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
}

// members are all processes of the sandbox: its kernel, who opens files for it, and those
// that run the program's code.
func members(t *testing.T) []int {
	t.Helper()
	var pids []int
	for word := range strings.FieldsSeq(string(must(os.ReadFile(filepath.Join(boxGroup(t), "cgroup.procs"))))) {
		pids = append(pids, must(strconv.Atoi(word)))
	}
	return pids
}

func hasOnlyNobodies(t *testing.T) {
	pids := members(t)
	if len(pids) < 3 {
		t.Errorf("its processes are %v", pids)
	}
	for _, pid := range pids {
		for _, id := range strings.Fields(field(t, pid, "status", "Uid:")) {
			if must(strconv.Atoi(id)) < firstUID {
				t.Errorf("process %d is one of user %s", pid, id)
			}
		}
		if must(os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid))) == must(os.Readlink("/proc/self/ns/user")) {
			t.Errorf("process %d is in the machine's user namespace", pid)
		}
	}
}

func opensFilesInSandbox(t *testing.T) {
	status, text, err := demand(t, "boxed", "/files", patience)
	count, why, _ := strings.Cut(text, " ")
	if n, _ := strconv.Atoi(count); err != nil || status != http.StatusOK || n >= 64 || n < 32 || !strings.Contains(why, "too many open files") {
		t.Errorf("it opened %s: %d %v", text, status, err)
	}
}

// forksInSandbox: a program that is refused goes on, and its sandbox is not refused anything.
func forksInSandbox(t *testing.T) {
	before := inspect(t, "boxed")
	for range 2 {
		status, text, err := demand(t, "boxed", "/fork?n=10000", patience)
		count, why, _ := strings.Cut(text, " ")
		if n, _ := strconv.Atoi(count); err != nil || status != http.StatusOK || n >= 32 || !strings.Contains(why, "temporarily unavailable") {
			t.Errorf("it started %s: %d %v", text, status, err)
		}
		t.Logf("measured: pids_limit 96 let it start %s", text)
	}
	if events := string(must(os.ReadFile(filepath.Join(boxGroup(t), "pids.events")))); strings.TrimSpace(events) != "max 0" {
		t.Errorf("the sandbox itself was refused: %s", events)
	}
	if now := inspect(t, "boxed"); now.PID != before.PID {
		t.Errorf("sandbox %d became %d", before.PID, now.PID)
	}
	run(t, ten, "stop", "boxed:alice")
	answers(t) // another
}

func adoptsSandbox(t *testing.T) {
	before := inspect(t, "boxed").PID
	for _, command := range [][]string{
		{"systemctl", "kill", "--signal=KILL", "--kill-whom=main", service},
		{"systemctl", "reload", service},
	} {
		daemon := mainPID(t)
		run(t, command...)
		replaced(t, daemon)
		answers(t)
		if now := inspect(t, "boxed").PID; now != before {
			t.Errorf("%v: sandbox %d became %d", command, before, now)
		}
		readsSandboxLimits(t)
	}
}

// takesMemoryInSandbox asks for twice the limit. Nothing stays of the one that was killed.
func takesMemoryInSandbox(t *testing.T) {
	before, old := inspect(t, "boxed"), members(t)
	if status, text, err := demand(t, "boxed", "/memory?mb=256", patience); err == nil && status != http.StatusBadGateway {
		t.Errorf("it was given 256 MiB: %d %s", status, text)
	}
	eventually(t, "the end of all its processes", func() bool {
		return !slices.ContainsFunc(old, func(pid int) bool { return exists(fmt.Sprintf("/proc/%d", pid)) })
	})
	answers(t)
	if now := inspect(t, "boxed"); now.OOMKills != before.OOMKills+1 || now.PID == before.PID {
		t.Errorf("counted %d times, after %d; sandbox %d was %d", now.OOMKills, before.OOMKills, now.PID, before.PID)
	}
	if text := run(t, ten, "logs", "boxed:alice"); !strings.Contains(text, "tenement: out of memory: ended by the kernel (memory_limit_mb = 128)") {
		t.Errorf("its log:\n%s", text)
	}
}

// stopsSandbox by stopping the daemon, of which the next request starts another. This one
// has replaced another, and is waited for all the same.
func stopsSandbox(t *testing.T) {
	daemon, old := mainPID(t), members(t)
	run(t, "systemctl", "stop", service)
	leavesNoSandbox(t, old)
	leavesNothing(t)
	answers(t)
	replaced(t, daemon)
}

// leavesNoSandbox wants neither its processes nor its bundle to be left.
func leavesNoSandbox(t *testing.T, pids []int) {
	t.Helper()
	eventually(t, "the end of its processes", func() bool {
		return !slices.ContainsFunc(pids, func(pid int) bool { return exists(fmt.Sprintf("/proc/%d", pid)) })
	})
	if left := must(filepath.Glob("/run/tenement/*")); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

// uninstallsSandbox while it is awake, and its daemon was killed.
func uninstallsSandbox(t *testing.T) {
	old := members(t)
	losesDaemonForGood(t)
	if left := must(filepath.Glob("/run/tenement/*/*")); len(left) != 1 {
		t.Errorf("without the daemon there are the bundles %q", left)
	}
	run(t, ten, "uninstall", "--purge", "--yes")
	leavesNoSandbox(t, old)
	leavesNothing(t)
	eventually(t, "the slice is gone", func() bool { return !exists("/sys/fs/cgroup/tenement.slice") })
	for _, path := range []string{dataDir, filepath.Dir(configFile)} {
		if exists(path) {
			t.Errorf("%s is left", path)
		}
	}
}

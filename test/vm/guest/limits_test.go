package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestLimits: programs that take all they can get, beside one that does not.
func TestLimits(t *testing.T) {
	steps(t,
		step{"there is swap", swapsOn},
		step{"the suites of this kernel", runsSuites},
		step{"install", installsLimits},
		step{"limits are set", readsLimits},
		step{"memory", takesMemory},
		step{"cpu_limit", takesProcessor},
		step{"cpu_shares", sharesProcessor},
		step{"pids_limit", forksOn},
		step{"open_files_limit", opensFiles},
		step{"the daemon is killed", losesDaemonWithLimits},
		step{"out of memory without a daemon", takesMemoryUnseen},
		step{"the daemon is restarted", restartsWithLimits},
		step{"the keeper is killed", losesKeeper},
		step{"uninstall", func(t *testing.T) { run(t, ten, "uninstall", "--purge", "--yes") }},
	)
}

const tenantProgram = "/srv/tenant/tenant"

var limitsConfiguration = `[settings]
domain = "localhost"

[service.notes]
command = "` + program + `"
health = "/health"
idle_timeout = 0
startup_timeout = 60
isolation = "process"
` + limited("memory", "memory_limit_mb = 64\npids_limit = 200\nopen_files_limit = 128") +
	limited("share", "cpu_limit = 0.25") +
	limited("heavy", "cpu_shares = 400") +
	limited("light", "cpu_shares = 100") +
	limited("forks", "pids_limit = 32") +
	limited("files", "open_files_limit = 64") +
	limited("disk", "io_weight = 250") + `
[instances]
notes = ["alice"]
memory = ["alice"]
share = ["alice"]
heavy = ["alice"]
light = ["alice"]
forks = ["alice"]
files = ["alice"]
disk = ["alice"]
`

func limited(name, limits string) string {
	return fmt.Sprintf("\n[service.%s]\ncommand = %q\nidle_timeout = 0\nisolation = \"process\"\nstartup_timeout = 60\nhealth = \"/health\"\nrequest_timeout = 60\n%s\n", name, tenantProgram+" tenant-program", limits)
}

// swapsOn: a limit that did not count swap would let twice as much through.
func swapsOn(t *testing.T) {
	const file = "/swap"
	run(t, "fallocate", "-l", "192M", file)
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "mkswap", file)
	run(t, "swapon", file)
}

// runsSuites has each in a delegated cgroup: one alone in its own, one beside a keeper.
func runsSuites(t *testing.T) {
	const require = "root,cgroup,controllers"
	suite(t, "cgroup.test", "Limits|Refused|Missing|Freeze", require, "")
	below := keepsSuites(t)
	suite(t, "runtime.test", "^TestNamespace$$", require+",bpf", below)
	suite(t, "runtime.test", "^TestWithoutRoot$$", require, below)
	suite(t, "runtime.test", "TestHostWithCgroups/^(freeze_and_thaw|kill_ends_what_is_frozen|usage|out_of_memory|a_child.*|processes|share_of.*|weights)$$", require, below)
	run(t, "systemctl", "stop", "suite-keeper")
}

const runtimeUnits = "/run/systemd/system/"

// keepsSuites starts a keeper, and gives the setting for those who use its cgroup: the
// runtimes' tests start daemons of their own, so that they are not alone in theirs.
func keepsSuites(t *testing.T) string {
	t.Helper()
	write(t, runtimeUnits+"suite-keeper.service", "[Service]\nDelegate=yes\nExecStart=/bin/sleep infinity\n", 0o644)
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "start", "suite-keeper")
	return "TENEMENT_CGROUP=/sys/fs/cgroup" + property(t, "suite-keeper", "ControlGroup")
}

// suite runs those tests of a binary that match a pattern.
func suite(t *testing.T, binary, pattern, require, environment string) {
	t.Helper()
	output := "/run/" + binary + ".log"
	if err := os.RemoveAll(output); err != nil { // systemd does not empty it
		t.Fatal(err)
	}
	write(t, runtimeUnits+"suite.service", fmt.Sprintf("[Service]\nType=oneshot\nDelegate=yes\nEnvironment=TENEMENT_REQUIRE=%s %s\n"+
		"ExecStart=%s/%s -test.v '-test.run=%s'\nStandardOutput=file:%s\nStandardError=inherit\n", require, environment, payload, binary, pattern, output), 0o644)
	run(t, "systemctl", "daemon-reload")
	_, messages, status := tryFor(t, 2*patience, "systemctl", "start", "suite.service")
	text := string(must(os.ReadFile(output)))
	if status != 0 || !strings.Contains(text, "--- PASS") {
		t.Errorf("%s: exit status %d\n%s%s", binary, status, messages, text)
	}
	t.Logf("measured: %s: %d tests passed, %d were skipped", binary, strings.Count(text, "--- PASS"), strings.Count(text, "--- SKIP"))
}

func installsLimits(t *testing.T) {
	for from, to := range map[string]string{"notes": program, "runtime.test": tenantProgram} {
		write(t, to, string(must(os.ReadFile(filepath.Join(payload, from)))), 0o755)
	}
	write(t, configFile, limitsConfiguration, 0o644)
	run(t, payload+"/ten", "install", "--user", "tenement") // root's limits are part of the other lives
	if status, text, err := demand(t, "notes", "/health", patience); err != nil || status != http.StatusOK {
		t.Fatalf("notes: %d %s %v", status, text, err)
	}
}

// readsLimits: what the configuration says is what the kernel has.
func readsLimits(t *testing.T) {
	for file, want := range map[string]string{
		"memory/memory.max": "67108864", "memory/memory.swap.max": "0", "memory/memory.oom.group": "1", "memory/pids.max": "200",
		"share/cpu.max": "25000 100000", "heavy/cpu.weight": "400", "light/cpu.weight": "100", "forks/pids.max": "32",
		"disk/io.weight": "default 250", "notes/memory.max": "max", "notes/pids.max": "max",
	} {
		name, file, _ := strings.Cut(file, "/")
		if got := control(t, name, file); got != want {
			t.Errorf("%s of %s is %q, want %q", file, name, got, want)
		}
	}
	if got := field(t, pidOf(t, "files"), "limits", "Max open files"); got != "64 64 files" {
		t.Errorf("open files: %s", got)
	}
	// As a tenant would see it that looks for a way out of its group.
	text := run(t, "cat", "/proc/"+strconv.Itoa(pidOf(t, "memory"))+"/cgroup")
	if unit := property(t, keeper, "ControlGroup"); !strings.HasPrefix(text, "0::"+unit+"/") {
		t.Errorf("a tenant is in %s, and not below %s", text, unit)
	}
}

// instance is the part of `ten inspect --json` that is looked at.
type instance struct {
	PID      int
	Port     int
	OOMKills int `json:"oom_kills"`
}

func inspect(t *testing.T, name string) instance {
	t.Helper()
	var in instance
	if err := json.Unmarshal([]byte(run(t, ten, "inspect", "--json", name+":alice")), &in); err != nil {
		t.Fatal(err)
	}
	return in
}

// pidOf is the process of name:alice, which is woken if need be.
func pidOf(t *testing.T, name string) int {
	t.Helper()
	if name == "notes" {
		return tenant(t)
	}
	status, text, err := demand(t, name, "/pid", patience)
	pid, bad := strconv.Atoi(text)
	if err != nil || status != http.StatusOK || bad != nil {
		t.Fatalf("%s: %d %s %v", name, status, text, err)
	}
	return pid
}

// control is a file of the cgroup of name:alice.
func control(t *testing.T, name, file string) string {
	t.Helper()
	group := strings.TrimSpace(strings.TrimPrefix(string(must(os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pidOf(t, name))))), "0::"))
	return strings.TrimSpace(string(must(os.ReadFile("/sys/fs/cgroup" + group + "/" + file))))
}

// demand asks name:alice for a path, within limit.
func demand(t *testing.T, name, path string, limit time.Duration) (int, string, error) {
	t.Helper()
	return request(t, "127.0.0.1:8080", "alice."+name+".localhost", path, limit)
}

func request(t *testing.T, address, host, path string, limit time.Duration) (int, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	method := http.MethodGet
	if strings.HasPrefix(path, "/memory") {
		method = http.MethodPost // which is not tried again with the next process
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text), err
}

// meanwhile keeps asking a neighbour, and the daemon itself, as long as do runs. None may
// fail, and how long they took is printed.
func meanwhile(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	var group sync.WaitGroup
	for who, ask := range map[string]func() (int, string, error){
		"neighbour": func() (int, string, error) { return demand(t, "notes", "/health", time.Minute) },
		"daemon":    func() (int, string, error) { return request(t, "127.0.0.1:8080", "localhost", "/health", time.Minute) },
	} {
		group.Go(func() { keepAsking(t, who, ask, done) })
	}
	do()
	close(done)
	group.Wait()
}

func keepAsking(t *testing.T, who string, ask func() (int, string, error), done <-chan struct{}) {
	var took []time.Duration
	for {
		began := time.Now()
		status, text, err := ask()
		took = append(took, time.Since(began))
		if err != nil || status != http.StatusOK {
			t.Errorf("the %s: %d %s %v", who, status, text, err)
		}
		select {
		case <-done:
			slices.Sort(took)
			t.Logf("measured: %s of %d requests to the %s, p50 %s, p99 %s", t.Name(), len(took), who,
				took[len(took)/2].Round(100*time.Microsecond), took[len(took)*99/100].Round(100*time.Microsecond))
			if p99 := took[len(took)*99/100]; p99 > 5*time.Second { // an emulated machine
				t.Errorf("the %s took %s", who, p99)
			}
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// takesMemory asks for twice the limit: with the swap it would be there.
func takesMemory(t *testing.T) {
	before := inspect(t, "memory")
	meanwhile(t, func() {
		if status, text, err := demand(t, "memory", "/memory?mb=128", patience); err == nil && status != http.StatusBadGateway {
			t.Errorf("it was given 128 MiB: %d %s", status, text)
		}
		eventually(t, "a new process", func() bool { return pidOf(t, "memory") != before.PID })
	})
	if now := inspect(t, "memory"); now.OOMKills != before.OOMKills+1 {
		t.Errorf("counted %d times, after %d", now.OOMKills, before.OOMKills)
	}
	if text := run(t, ten, "ps"); !strings.Contains(text, "out of memory, once") {
		t.Errorf("ten ps:\n%s", text)
	}
	if text := run(t, ten, "inspect", "memory:alice"); !strings.Contains(text, "out of memory") {
		t.Errorf("ten inspect:\n%s", text)
	}
	if text := run(t, ten, "logs", "memory:alice"); !strings.Contains(text, "tenement: out of memory: ended by the kernel (memory_limit_mb = 64)") {
		t.Errorf("its log:\n%s", text)
	}
	if text := string(must(os.ReadFile("/proc/swaps"))); strings.Fields(text[strings.Index(text, "\n"):])[3] != "0" {
		t.Errorf("swap was used:\n%s", text)
	}
}

// processorTime is what name:alice has had so far.
func processorTime(t *testing.T, name string) time.Duration {
	t.Helper()
	first, _, _ := strings.Cut(control(t, name, "cpu.stat"), "\n")
	micros, err := strconv.Atoi(strings.TrimPrefix(first, "usage_usec "))
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(micros) * time.Microsecond
}

func spin(t *testing.T, name string) {
	t.Helper()
	if status, text, err := demand(t, name, "/spin?threads=2", patience); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s %v", status, text, err)
	}
}

// takesProcessor: the clock is asked before and after what it has had, so that a machine
// that is slow to answer does not look like one that gives too much.
func takesProcessor(t *testing.T) {
	spin(t, "share")
	meanwhile(t, func() {
		began, before := time.Now(), processorTime(t, "share")
		<-time.After(3 * time.Second)
		had := processorTime(t, "share") - before
		passed := time.Since(began)
		t.Logf("measured: cpu_limit 0.25 had %.3f of a core over %s", had.Seconds()/passed.Seconds(), passed.Round(time.Millisecond))
		if had.Seconds() > 0.25*passed.Seconds()*1.15 || had.Seconds() < 0.05*passed.Seconds() {
			t.Errorf("it had %s of %s", had, passed)
		}
	})
	run(t, ten, "stop", "share:alice")
}

// sharesProcessor: two want all of one core, and one weighs four times the other.
func sharesProcessor(t *testing.T) {
	for _, name := range []string{"heavy", "light"} {
		run(t, "taskset", "--all-tasks", "--cpu-list", "--pid", "1", strconv.Itoa(pidOf(t, name)))
		spin(t, name)
	}
	meanwhile(t, func() {
		heavy, light := processorTime(t, "heavy"), processorTime(t, "light")
		<-time.After(4 * time.Second)
		heavy, light = processorTime(t, "heavy")-heavy, processorTime(t, "light")-light
		ratio := heavy.Seconds() / light.Seconds()
		t.Logf("measured: cpu_shares 400 to 100 had %s and %s, ratio %.2f", heavy.Round(time.Millisecond), light.Round(time.Millisecond), ratio)
		if ratio < 2 { // alike without weights; an emulated processor is no good clock
			t.Errorf("a ratio of %.2f", ratio)
		}
	})
	run(t, ten, "stop", "heavy:alice")
	run(t, ten, "stop", "light:alice")
}

func forksOn(t *testing.T) {
	meanwhile(t, func() {
		for range 3 {
			status, text, err := demand(t, "forks", "/fork?n=10000", patience)
			count, why, _ := strings.Cut(text, " ")
			if n, _ := strconv.Atoi(count); err != nil || status != http.StatusOK || n >= 32 || !strings.Contains(why, "unavailable") {
				t.Errorf("it started %s: %d %v", text, status, err)
			}
		}
	})
	if got := control(t, "forks", "pids.events"); got == "max 0" {
		t.Error("it was never refused")
	}
	run(t, ten, "stop", "forks:alice")
	for _, path := range must(filepath.Glob("/proc/[0-9]*/cmdline")) {
		if text, err := os.ReadFile(path); err == nil && string(text) == "sleep\x001000000\x00" {
			t.Errorf("%s is still there", path)
		}
	}
}

func opensFiles(t *testing.T) {
	meanwhile(t, func() {
		status, text, err := demand(t, "files", "/files", patience)
		count, why, _ := strings.Cut(text, " ")
		if n, _ := strconv.Atoi(count); err != nil || status != http.StatusOK || n >= 64 || n < 32 || !strings.Contains(why, "too many open files") {
			t.Errorf("it opened %s: %d %v", text, status, err)
		}
	})
}

// keepsLimits wants memory:alice to have what it was given.
func keepsLimits(t *testing.T) {
	t.Helper()
	for file, want := range map[string]string{"memory.max": "67108864", "memory.swap.max": "0", "pids.max": "200"} {
		if got := control(t, "memory", file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	if got := field(t, pidOf(t, "memory"), "limits", "Max open files"); got != "128 128 files" {
		t.Errorf("open files: %s", got)
	}
}

func losesDaemonWithLimits(t *testing.T) {
	daemon, before := mainPID(t), pidOf(t, "memory")
	run(t, "systemctl", "kill", "--signal=KILL", "--kill-whom=main", service)
	replaced(t, daemon)
	if now := pidOf(t, "memory"); now != before {
		t.Errorf("tenant %d became %d", before, now)
	}
	keepsLimits(t)
	daemon = mainPID(t)
	run(t, "systemctl", "reload", service)
	replaced(t, daemon)
	if now := pidOf(t, "memory"); now != before {
		t.Errorf("at the upgrade tenant %d became %d", before, now)
	}
	keepsLimits(t)
}

// takesMemoryUnseen: the next daemon finds out what happened.
func takesMemoryUnseen(t *testing.T) {
	daemon, before := mainPID(t), inspect(t, "memory")
	run(t, "systemctl", "kill", "--signal=KILL", "--kill-whom=main", service)
	if _, text, err := request(t, "127.0.0.1:"+strconv.Itoa(before.Port), "tenant", "/memory?mb=128", patience); err == nil {
		t.Errorf("it was given 128 MiB: %s", text)
	}
	replaced(t, daemon)
	if status, text, err := demand(t, "memory", "/health", patience); err != nil || status != http.StatusOK {
		t.Errorf("afterwards: %d %s %v", status, text, err)
	}
	if now := inspect(t, "memory"); now.OOMKills != before.OOMKills+1 || now.PID == before.PID {
		t.Errorf("counted %d times, after %d", now.OOMKills, before.OOMKills)
	}
	text := run(t, ten, "logs", "memory:alice")
	t.Logf("measured: %s", text[strings.LastIndex(text, "tenement:"):])
}

// restartsWithLimits: the kernel lets a daemon be started beside divided cgroups.
func restartsWithLimits(t *testing.T) {
	daemon := mainPID(t)
	run(t, "systemctl", "restart", service)
	replaced(t, daemon)
	if status, text, err := demand(t, "memory", "/health", patience); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s %v", status, text, err)
	}
	keepsLimits(t)
}

// losesKeeper: the tenants end with it, and begin anew with their limits.
func losesKeeper(t *testing.T) {
	before := pidOf(t, "memory")
	old, err := strconv.Atoi(property(t, keeper, "MainPID"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another keeper", func() bool {
		pid := property(t, keeper, "MainPID")
		return pid != "0" && pid != strconv.Itoa(old)
	})
	eventually(t, "a tenant that serves", func() bool {
		status, _, err := demand(t, "memory", "/health", patience)
		return err == nil && status == http.StatusOK
	})
	if now := pidOf(t, "memory"); now == before {
		t.Error("the tenant outlived its cgroup")
	}
	keepsLimits(t)
}

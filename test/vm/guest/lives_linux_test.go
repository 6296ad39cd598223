package guest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestFirstBoot: a fresh machine gets the product, which then loses its daemon in every
// way there is.
func TestFirstBoot(t *testing.T) {
	steps(t,
		step{"install", installs},
		step{"the units are right", checksUnits},
		step{"the unit's restrictions hold", holdsRestrictions},
		step{"a request wakes a tenant", wakes},
		step{"the tenant is isolated", isIsolated},
		step{"the tenant has a network of its own", hasNetwork},
		step{"a second install disturbs nothing", installsAgain},
		step{"the daemon is killed", losesDaemon},
		step{"the daemon hangs", freezesDaemon},
		step{"the daemon is stopped", queues},
		step{"the daemon is upgraded", upgrades},
	)
}

// TestAfterReboot: the machine was shut down in order, while a tenant was awake.
func TestAfterReboot(t *testing.T) {
	steps(t,
		step{"the service is back", comesBack},
		step{"the data is there", func(t *testing.T) {
			remembers(t, "before", "after the kill", "after the hang", "after the stop", "after the upgrade")
			writes(t, "after the reboot")
		}},
	)
}

// TestAfterPowerCut: what the registry says of processes is of another boot.
func TestAfterPowerCut(t *testing.T) {
	steps(t,
		step{"the service is back", comesBack},
		step{"the data is there", func(t *testing.T) {
			remembers(t, "before", "after the kill", "after the hang", "after the stop", "after the upgrade", "after the reboot")
		}},
		step{"uninstall keeps the data", uninstalls},
		step{"purge removes the data", purges},
		step{"an install that fails leaves nothing", failsToInstall},
		step{"install for a user with a first configuration", installsForUser},
	)
}

const dropIn = "/etc/systemd/system/" + service + ".d/lane.conf"

func installs(t *testing.T) {
	programText, err := os.ReadFile(filepath.Join(payload, "notes"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, program, string(programText), 0o755)
	write(t, configFile, configuration, 0o644)
	// An operator's own setting, and a watchdog that a test can wait for.
	write(t, dropIn, "[Service]\nWatchdogSec=30\n", 0o644)
	token, messages, status := try(t, payload+"/ten", "install")
	if status != 0 {
		t.Fatalf("exit status %d\n%s", status, messages)
	}
	kept, err := os.ReadFile(dataDir + "/.tenement/api_token")
	if err != nil {
		t.Fatal(err)
	}
	if token = strings.TrimSpace(token); token == "" || token != strings.TrimSpace(string(kept)) {
		t.Errorf("the token printed is %q and the one kept %q", token, kept)
	}
	for _, unit := range []string{service, socket} {
		for question, want := range map[string]string{"is-active": "active", "is-enabled": "enabled"} {
			if got := run(t, "systemctl", question, unit); got != want {
				t.Errorf("%s %s: %s", question, unit, got)
			}
		}
	}
	if text := string(must(os.ReadFile(configFile))); text != configuration {
		t.Errorf("the configuration was changed to\n%s", text)
	}
}

func checksUnits(t *testing.T) {
	if _, complaints, status := try(t, "systemd-analyze", "verify", "--recursive-errors=no", "/etc/systemd/system/"+service, "/etc/systemd/system/"+socket, "/etc/systemd/system/"+keeper); status != 0 || strings.Contains(complaints, "tenement") {
		t.Errorf("systemd-analyze verify: exit status %d\n%s", status, complaints)
	}
	journal := run(t, "journalctl", "-b", "-o", "cat", "--no-pager", "_PID=1")
	for line := range strings.Lines(journal) {
		if strings.Contains(line, "tenement") && strings.Contains(line, "ignoring") {
			t.Errorf("systemd does not understand the unit: %s", line)
		}
	}
	for name, want := range map[string]string{
		"Type": "notify", "NotifyAccess": "main", "Delegate": "no", "KillMode": "process", "Restart": "always", "OOMPolicy": "continue",
		"WatchdogUSec": "30s", "User": "root", "NoNewPrivileges": "yes", "ProtectSystem": "full", "ProtectHome": "read-only",
		"TasksMax": "infinity", "LimitNOFILE": "1048576", "LimitNOFILESoft": "1024", "TimeoutStopUSec": "2min", "DevicePolicy": "closed",
	} {
		if got := property(t, service, name); got != want {
			t.Errorf("%s=%s, want %s", name, got, want)
		}
	}
	if got := property(t, service, "StatusText"); got != "Listening on 127.0.0.1:8080" {
		t.Errorf("the daemon's status is %q", got)
	}
}

// holdsRestrictions looks at what the kernel has made of the unit.
func holdsRestrictions(t *testing.T) {
	pid := mainPID(t)
	if got, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); got != ten {
		t.Errorf("the daemon is %s, want a copy of the program in %s", got, ten)
	}
	for name, want := range map[string]string{"CapBnd:": daemonCapabilities, "CapEff:": daemonCapabilities, "NoNewPrivs:": "1", "Seccomp:": "2", "Uid:": "0 0 0 0"} {
		if got := field(t, pid, "status", name); got != want {
			t.Errorf("%s %s, want %s", name, got, want)
		}
	}
	wantsMounts(t, pid, " /usr/lib/modules ")
}

// daemonCapabilities are, by their numbers: chown 0, dac_override 1, dac_read_search 2,
// fowner 3, fsetid 4, kill 5, setgid 6, setuid 7, setpcap 8, net_admin 12, sys_chroot 18,
// sys_ptrace 19, sys_admin 21, mknod 27.
const daemonCapabilities = "00000000082c11ff"

func wantsMounts(t *testing.T, pid int, more string) {
	t.Helper()
	mounts := string(must(os.ReadFile(fmt.Sprintf("/proc/%d/mounts", pid))))
	for _, want := range []string{" /usr ext4 ro,", " /etc ext4 ro,", " /home ext4 ro,", " /var/lib/tenement ext4 rw,", more} {
		if !strings.Contains(mounts, want) {
			t.Errorf("no %q among the daemon's mounts:\n%s", want, mounts)
		}
	}
}

func wakes(t *testing.T) {
	run(t, ten, "spawn", "notes:alice", "--no-wake")
	if awake := tenants(t); len(awake) > 0 {
		t.Fatalf("awake before there was a request: %v", awake)
	}
	writes(t, "before")
	pid := tenant(t)
	group := strings.TrimSpace(strings.TrimPrefix(string(must(os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)))), "0::"))
	unit := property(t, keeper, "ControlGroup")
	if !strings.HasPrefix(group, unit+"/") {
		t.Errorf("the tenant is in %s, which is not below %s", group, unit)
	}
	for file, want := range map[string]string{"memory.max": "268435456", "pids.max": "100"} {
		if got := strings.TrimSpace(string(must(os.ReadFile("/sys/fs/cgroup" + group + "/" + file)))); got != want {
			t.Errorf("%s is %s, want %s", file, got, want)
		}
	}
	if got := field(t, pid, "status", "NoNewPrivs:"); got != "1" {
		t.Errorf("the tenant may gain privileges: %s", got)
	}
	// As told by a shell: a Go program raises its own limit.
	if got := strings.TrimSpace(string(must(os.ReadFile(dataDir + "/notes/alice/limit")))); got != "1024" {
		t.Errorf("the tenant begins with a limit of %s open files", got)
	}
	environment := string(must(os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))))
	for _, name := range []string{"NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_", "INVOCATION_ID"} {
		if strings.Contains(environment, name) {
			t.Errorf("the tenant was given %s", name)
		}
	}
}

func installsAgain(t *testing.T) {
	daemonBefore, tenantBefore := mainPID(t), tenant(t)
	token, messages, status := try(t, payload+"/ten", "install")
	if status != 0 || token != "" || !strings.Contains(messages, "up to date") {
		t.Errorf("exit status %d, a token %q, and\n%s", status, token, messages)
	}
	if now := mainPID(t); now != daemonBefore {
		t.Errorf("daemon %d became %d", daemonBefore, now)
	}
	if now := tenant(t); now != tenantBefore {
		t.Errorf("tenant %d became %d", tenantBefore, now)
	}
}

// adopted wants the tenant to be the process it was.
func adopted(t *testing.T, before int) {
	t.Helper()
	if now := tenant(t); now != before {
		t.Errorf("tenant %d became %d", before, now)
	}
}

// losesDaemon: whoever asks while there is no daemon waits in the socket.
func losesDaemon(t *testing.T) {
	daemonBefore, tenantBefore := mainPID(t), tenant(t)
	end := linkOf(t, tenantBefore)
	run(t, "systemctl", "kill", "--signal=KILL", "--kill-whom=main", service)
	eventually(t, "the end of the daemon", func() bool { return !exists(fmt.Sprintf("/proc/%d", daemonBefore)) })
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			if status, text, err := ask(t, "GET", ""); err != nil || status != 200 {
				t.Errorf("a request of the time without a daemon: %d %s %v", status, text, err)
			}
		})
	}
	group.Wait()
	replaced(t, daemonBefore)
	remembers(t, "before")
	writes(t, "after the kill")
	adopted(t, tenantBefore)
	if now := linkOf(t, tenantBefore); now != end {
		t.Errorf("its network was at %s and is at %s", end, now)
	}
}

// freezesDaemon: a daemon that does nothing at all is found out by the watchdog.
func freezesDaemon(t *testing.T) {
	daemonBefore, tenantBefore := mainPID(t), tenant(t)
	if err := syscall.Kill(daemonBefore, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	replaced(t, daemonBefore)
	journal := run(t, "journalctl", "-b", "-o", "cat", "--no-pager", "-u", service)
	for _, want := range []string{"Watchdog timeout", "SIGABRT: abort", "goroutine "} {
		if !strings.Contains(journal, want) {
			t.Errorf("the journal does not have %q", want)
		}
	}
	remembers(t, "before", "after the kill")
	writes(t, "after the hang")
	if err := os.Remove(dropIn); err != nil { // from the next boot on, it has its own time
		t.Error(err)
	}
	adopted(t, tenantBefore)
}

// queues: the socket outlives a stopped daemon, and the next request starts it.
func queues(t *testing.T) {
	daemonBefore := mainPID(t)
	run(t, "systemctl", "stop", service)
	if awake := tenants(t); len(awake) > 0 {
		t.Errorf("still awake after the stop: %v", awake)
	}
	if got := property(t, service, "Result"); got != "success" {
		t.Errorf("the stop's result is %s", got)
	}
	leavesNothing(t)
	remembers(t, "before", "after the kill", "after the hang")
	replaced(t, daemonBefore)
	writes(t, "after the stop")
}

// upgrades: systemctl reload hands over to a new daemon.
func upgrades(t *testing.T) {
	daemonBefore, tenantBefore := mainPID(t), tenant(t)
	run(t, "systemctl", "reload", service)
	replaced(t, daemonBefore)
	remembers(t, "before", "after the kill", "after the hang", "after the stop")
	writes(t, "after the upgrade")
	adopted(t, tenantBefore)
}

func comesBack(t *testing.T) {
	active(t)
	if got := property(t, service, "NRestarts"); got != "0" {
		t.Errorf("it took %s restarts", got)
	}
}

// losesDaemonForGood: it was killed, and is not started again.
func losesDaemonForGood(t *testing.T) {
	t.Helper()
	write(t, dropIn, "[Service]\nRestart=no\n", 0o644)
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "kill", "--signal=KILL", "--kill-whom=main", service)
	eventually(t, "the end of the daemon", func() bool { return property(t, service, "ActiveState") == "failed" })
	if err := os.RemoveAll(filepath.Dir(dropIn)); err != nil {
		t.Error(err)
	}
}

func uninstalls(t *testing.T) {
	tenant(t) // is awake
	losesDaemonForGood(t)
	if tables := tables(t); len(tables) != 1 {
		t.Errorf("without the daemon there are the tables %q", tables)
	}
	left := exec.Command("sleep", "1000000")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- left.Wait() }()
	group := "/sys/fs/cgroup" + property(t, keeper, "ControlGroup") + "/left"
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, group+"/cgroup.procs", strconv.Itoa(left.Process.Pid), 0)
	run(t, ten, "uninstall")
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it ended by itself")
		}
	case <-t.Context().Done():
	}
	for _, path := range []string{"/etc/systemd/system/" + service, "/etc/systemd/system/" + socket, "/etc/systemd/system/" + keeper} {
		if exists(path) {
			t.Errorf("%s is still there", path)
		}
	}
	if awake := tenants(t); len(awake) > 0 {
		t.Errorf("still awake: %v", awake)
	}
	leavesNothing(t)
	eventually(t, "the slice is gone", func() bool { return !exists("/sys/fs/cgroup/tenement.slice") })
	if links, _ := filepath.Glob("/etc/systemd/system/*.wants/tenement*"); len(links) > 0 {
		t.Errorf("still enabled: %v", links)
	}
	if _, _, err := ask(t, "GET", ""); err == nil {
		t.Error("somebody still answers")
	}
	for _, path := range []string{configFile, dataDir + "/notes/alice/app.db", dataDir + "/.tenement/state.db"} {
		if !exists(path) {
			t.Errorf("%s is gone", path)
		}
	}
	run(t, ten, "uninstall") // once more is no error
}

func purges(t *testing.T) {
	const precious = "/srv/precious/file"
	write(t, precious, "not the daemon's", 0o666)
	if err := os.Symlink(filepath.Dir(precious), dataDir+"/notes/alice/link"); err != nil {
		t.Fatal(err)
	}
	if _, messages, status := try(t, ten, "uninstall", "--purge"); status != 2 || !strings.Contains(messages, "--yes") {
		t.Errorf("without --yes: exit status %d\n%s", status, messages)
	}
	if !exists(dataDir + "/notes/alice/app.db") {
		t.Fatal("the data went without a --yes")
	}
	run(t, ten, "uninstall", "--purge", "--yes")
	if exists(dataDir) || exists(filepath.Dir(configFile)) {
		t.Error("data or configuration are still there")
	}
	if !exists(precious) {
		t.Error("a link led the removal out of the data directory")
	}
}

// failsToInstall: somebody else has the port.
func failsToInstall(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	token, messages, status := try(t, ten, "install")
	if status != 1 || token != "" || !strings.Contains(messages, "hint: see what it said: journalctl") {
		t.Errorf("exit status %d, a token %q, and\n%s", status, token, messages)
	}
	for _, path := range []string{"/etc/systemd/system/" + service, "/etc/systemd/system/" + socket, "/etc/systemd/system/" + keeper, dataDir, filepath.Dir(configFile)} {
		if exists(path) {
			t.Errorf("%s was left behind", path)
		}
	}
	if got := property(t, service, "LoadState"); got != "not-found" {
		t.Errorf("systemd still knows the unit: %s", got)
	}
}

// installsForUser also has the first configuration written, whose service nobody asks for.
func installsForUser(t *testing.T) {
	token, messages, status := try(t, ten, "install", "--user", "tenement")
	if status != 0 || strings.TrimSpace(token) == "" || !strings.Contains(messages, "not isolated") {
		t.Fatalf("exit status %d, a token %q, and\n%s", status, token, messages)
	}
	active(t)
	pid, uid := mainPID(t), run(t, "id", "-u", "tenement")
	all := strings.Join([]string{uid, uid, uid, uid}, " ")
	for name, want := range map[string]string{"CapBnd:": none, "NoNewPrivs:": "1", "Seccomp:": "2", "Uid:": all} {
		if got := field(t, pid, "status", name); got != want {
			t.Errorf("%s %s, want %s", name, got, want)
		}
	}
	wantsMounts(t, pid, "hidepid=invisible")
	if text := string(must(os.ReadFile(configFile))); !strings.Contains(text, "[service.api]") {
		t.Errorf("the first configuration is\n%s", text)
	}
	if status, _, err := ask(t, "GET", ""); err != nil || status != 404 {
		t.Errorf("a host that nobody has: %d %v", status, err)
	}
	write(t, configFile, configuration, 0o644)
	run(t, ten, "reload")
	run(t, ten, "spawn", "notes:alice")
	writes(t, "for a user")
	if got := field(t, tenant(t), "status", "Uid:"); got != all {
		t.Errorf("the tenant runs as %s", got)
	}
	if _, messages, status := try(t, ten, "install"); status != 0 || !strings.Contains(messages, "up to date") {
		t.Errorf("once more, without --user: exit status %d and\n%s", status, messages)
	}
	run(t, ten, "uninstall", "--purge", "--yes")
	if exists(dataDir) {
		t.Error("the data is still there")
	}
	leavesNothing(t)
}

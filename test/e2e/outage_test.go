package e2e

import (
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenement"
	"tenement/internal/cgroup"
	"tenement/internal/store" // and with it the SQLite driver
)

// status is a line of /proc/PID/status, or "" when there is no such process.
func status(t *testing.T, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) { // the latter between open and read
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func requireLinux(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("needs /proc: Linux only")
	}
}

// pid is the process of an instance, as the daemon knows it.
func (d *daemon) pid(id string) int {
	d.t.Helper()
	for line := range strings.Lines(d.command("inspect", id)) {
		if value, ok := strings.CutPrefix(line, "pid "); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				d.t.Fatal(err)
			}
			return pid
		}
	}
	d.t.Fatalf("%s has no process", id)
	return 0
}

// kill ends the daemon as a crash does, and waits until it is no more.
func (d *daemon) kill() {
	d.t.Helper()
	d.killed = true
	if err := d.process.Kill(); err != nil {
		d.t.Fatal(err)
	}
	d.waitReaped()
}

func TestKilledDaemon(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	first := start(t, "notes")
	first.command("spawn", "notes:alice")
	first.command("spawn", "notes:bob", "--no-wake")
	first.command("spawn", "notes:dead")
	first.command("weight", "notes:alice", "70")
	first.post("alice.notes.localhost", "/notes", "written before")
	tenant, dead := first.pid("notes:alice"), first.pid("notes:dead")
	first.kill()
	if err := syscall.Kill(dead, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitGone(t, dead)

	second := startConfig(t, first.config, first.dataDir)
	if pid := second.pid("notes:alice"); pid != tenant {
		t.Errorf("process %d serves, before it was %d", pid, tenant)
	}
	if got := second.get(http.StatusOK, "alice.notes.localhost", "/notes").body; !strings.Contains(got, "written before") {
		t.Errorf("notes %s", got)
	}
	if got := second.command("inspect", "notes:alice"); !strings.Contains(got, "70") {
		t.Errorf("the weight is lost:\n%s", got)
	}
	second.get(http.StatusOK, "bob.notes.localhost", "/notes")
	second.get(http.StatusOK, "dead.notes.localhost", "/notes")
	second.get(http.StatusOK, "notes.localhost", "/notes")
	second.command("stop", "notes:alice")
	waitGone(t, tenant)
}

// TestKilledDaemonUnderLoad: only what was under way fails, and what came while there was
// no daemon. No tenant is restarted, and no acknowledged write is lost.
func TestKilledDaemonUnderLoad(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	first := start(t, "notes")
	failures, killed, serving := first.killUnderLoad(first.again, true)
	for _, f := range failures {
		if f.ended.Before(killed) || f.begun.After(serving) {
			t.Errorf("failed %v after the kill, the next daemon served after %v: %v", f.begun.Sub(killed), serving.Sub(killed), f.err)
		}
	}
}

// TestKilledDaemonBehindASocket: with the socket unit, only what was under way fails.
func TestKilledDaemonBehindASocket(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	if err := build(); err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	address := listener.Addr().String()
	first := startOn(t, socket, address, filepath.Join(root, "examples", "notes", "tenement.toml"), t.TempDir())
	// Without kept-alive connections: who reuses one may learn of its end by a failure.
	failures, killed, _ := first.killUnderLoad(func() *daemon { return startOn(t, socket, address, first.config, first.dataDir) }, false)
	for _, f := range failures {
		if f.begun.After(killed) {
			t.Errorf("failed %v after the kill: %v", f.begun.Sub(killed), f.err)
		}
	}
}

// killUnderLoad kills d in the middle of a load and starts the next daemon. It returns
// what failed, and checks what must not have: tenants and their data.
func (d *daemon) killUnderLoad(again func() *daemon, keepAlive bool) (failures []failedRequest, killed, serving time.Time) {
	d.t.Helper()
	const tenants, perSecond = 20, 200
	hosts := d.spawnMany(tenants)
	pids := d.pids()
	l := d.startLoad(hosts, perSecond, keepAlive)
	l.waitFor(perSecond)
	killed = time.Now()
	d.kill()
	next := again()
	serving = time.Now()
	l.waitFor(2 * perSecond)
	l.stop()
	d.t.Logf("%d requests, %d failed; %v without a daemon", l.sent, len(l.failures), serving.Sub(killed))
	if after := next.pids(); len(pids) != tenants || !maps.Equal(pids, after) {
		d.t.Errorf("processes %v, before %v", after, pids)
	}
	l.wantKept(next)
	return l.failures, killed, serving
}

// TestStrangerWithARecordedPID: the process that has the pid now is none of ours.
func TestStrangerWithARecordedPID(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	first := start(t, "notes")
	first.command("spawn", "notes:alice")
	tenant := first.pid("notes:alice")
	first.kill()
	if err := syscall.Kill(tenant, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitGone(t, tenant)
	stranger := exec.Command("sleep", "1000")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stranger.Process.Kill(); err != nil {
			t.Errorf("it did not survive: %v", err)
		}
		_ = stranger.Wait() // killed: an error by design
	})
	changeRecord(t, first.dataDir, "UPDATE processes SET pid = ?", stranger.Process.Pid)

	second := startConfig(t, first.config, first.dataDir)
	second.get(http.StatusOK, "alice.notes.localhost", "/notes")
	if pid := second.pid("notes:alice"); pid == stranger.Process.Pid {
		t.Error("the stranger was adopted")
	}
	second.command("stop", "notes:alice")
	if state := status(t, stranger.Process.Pid, "State"); !strings.HasPrefix(state, "S") {
		t.Errorf("the stranger is in state %q", state)
	}
}

// changeRecord changes the registry of a data directory that no daemon serves.
func changeRecord(t *testing.T, dataDir, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dataDir, ".tenement", "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), statement, args...)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestOrphansWithoutARecord: the daemon is killed and so is the tenant's main process, or
// the daemon had not come to recording it. What that one had started is found and ended
// all the same, and no group stays behind: a daemon that cannot remove its groups ends
// with an error, which the test would see.
func TestOrphansWithoutARecord(t *testing.T) {
	t.Parallel()
	requireCgroups(t)
	if err := build(); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "tenement.toml")
	text := fmt.Sprintf(`[service.notes]
command = "sh -c 'sleep 1000 & echo $! >child; exec %[1]s/bin/notes'"
readable = ["%[1]s/bin"]
workdir = "{data_dir}/{id}"
health = "/health"
`, root)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	first := startConfig(t, config, t.TempDir())
	first.command("spawn", "notes:alice")
	child, err := strconv.Atoi(strings.TrimSpace(read(t, filepath.Join(first.dataDir, "notes", "alice", "child"))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(child, syscall.SIGKILL) }) // there only if the test failed
	main := first.pid("notes:alice")
	first.killed = true
	for _, pid := range []int{first.process.Pid, main} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	first.waitReaped()
	waitGone(t, main)
	if status(t, child, "State") == "" {
		t.Fatal("the child ended with its parent: the test shows nothing")
	}
	s, err := store.Open(t.Context(), filepath.Join(first.dataDir, ".tenement"))
	if err != nil {
		t.Fatal(err)
	}
	err = s.DeleteProcess(t.Context(), tenement.InstanceID{Service: "notes", Name: "alice"})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	startConfig(t, config, first.dataDir)
	waitGone(t, child)
}

// requireCgroups skips the test where a daemon could make none.
func requireCgroups(t *testing.T) {
	t.Helper()
	tree, err := cgroup.Open(fmt.Sprintf("tenement-e2e-%d", os.Getpid()))
	if err == nil {
		err = tree.Close()
	}
	switch {
	case err == nil:
	case slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), "cgroup"):
		t.Fatal(err)
	default:
		t.Skipf("%v (run as root on a machine with a cgroup v2 hierarchy)", err)
	}
}

// waitGone polls until pid is no process, or only a zombie that waits for its parent.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	waitState(t, pid, func(state string) bool { return state == "" || strings.HasPrefix(state, "Z") })
}

// waitReaped polls until the daemon, a child of the test's, is no process at all: while
// it is a zombie, one of its threads may still hold its files, and so its lock.
func (d *daemon) waitReaped() {
	d.t.Helper()
	waitState(d.t, d.process.Pid, func(state string) bool { return state == "" })
}

func waitState(t *testing.T, pid int, ok func(state string) bool) {
	t.Helper()
	deadline := time.After(stopTimeout)
	for tick := time.Tick(5 * time.Millisecond); !ok(status(t, pid, "State")); {
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("process %d is still there", pid)
		}
	}
}

// residentKB is the daemon's memory.
func (d *daemon) residentKB() int {
	d.t.Helper()
	kb, err := strconv.Atoi(strings.TrimSuffix(status(d.t, d.process.Pid, "VmRSS"), " kB"))
	if err != nil {
		d.t.Fatal(err)
	}
	return kb
}

// register fills the registry of a data directory that no daemon serves, all at once:
// one by one takes longer than the test has.
func register(t *testing.T, dataDir string, n int) {
	t.Helper()
	dir := filepath.Join(dataDir, ".tenement")
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	changeRecord(t, dataDir, `
		WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?)
		INSERT INTO instances (service, name, created_at) SELECT 'notes', 'customer' || n, 1 FROM numbers`, n)
}

// TestSleepingInstancesCostNoMemory: within 10 MB of what it is with ten.
func TestSleepingInstancesCostNoMemory(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	if testing.Short() {
		t.Skip("registers 100,000 instances: run without -short")
	}
	used := map[int]int{}
	for _, n := range []int{10, 100_000} {
		dir := t.TempDir()
		register(t, dir, n)
		d := startLean(t, dir)
		for i := range 5 {
			d.get(http.StatusOK, fmt.Sprintf("customer%d.notes.localhost", i*n/5), "/notes")
		}
		d.command("ps", "-a")
		used[n] = d.residentKB()
	}
	t.Logf("resident kB by number registered: %v", used)
	if more := used[100_000] - used[10]; more > 10<<10 {
		t.Errorf("100,000 sleeping instances cost %d kB", more)
	}
}

func TestUnknownHostsLeaveNothing(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	d := startLean(t, t.TempDir())
	d.command("spawn", "notes:alice", "--no-wake")
	ask := func(n int) {
		for range n {
			host := fmt.Sprintf("x%d.notes.localhost", rand.Uint64())
			d.get(http.StatusNotFound, host, "/")
		}
	}
	ask(1000) // what the first requests of all allocate is not theirs
	before := d.residentKB()
	ask(10_000)
	if more := d.residentKB() - before; more > 4<<10 {
		t.Errorf("10,000 unknown hosts cost %d kB", more)
	}
	entries, err := os.ReadDir(d.dataDir)
	if err != nil || len(entries) != 1 {
		t.Errorf("in the data directory: %v, %v; want the daemon's own state alone", entries, err)
	}
	if out := d.command("ps", "-a"); strings.Count(out, "\n") != 2 {
		t.Errorf("registered:\n%s", out)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	d := start(t, "notes")
	d.command("spawn", "notes:alice")
	tenant := d.pid("notes:alice")
	if err := syscall.Kill(tenant, syscall.SIGSTOP); err != nil { // it takes no SIGTERM now
		t.Fatal(err)
	}
	d.killed = true
	if err := d.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.waitReaped()
	startConfig(t, d.config, d.dataDir) // goes on with the stop
	waitGone(t, tenant)
}

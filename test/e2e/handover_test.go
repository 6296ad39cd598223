package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenement/internal/runtime/runtimetest"
)

// echoing is a service that runs the tenant program with flags.
func echoing(name, keys string, flags ...string) string {
	var words []string
	for _, word := range runtimetest.TenantCommand(flags...) {
		words = append(words, "'"+word+"'")
	}
	return fmt.Sprintf("\n[service.%s]\ncommand = %s\nhealth = \"/health\"\n%s\n", name, strconv.Quote(strings.Join(words, " ")), keys)
}

// startText serves a configuration; ten is a program of its own, which can be replaced.
func startText(t *testing.T, text string, flags ...string) *daemon {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config, ten := filepath.Join(dir, "tenement.toml"), filepath.Join(dir, "ten")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(root, "bin", "ten")
	if err := os.Link(good, ten); err != nil {
		t.Fatal(err)
	}
	d := startAt(t, ten, config, t.TempDir(), "127.0.0.1:0", flags...)
	d.ten, d.program = good, ten
	return d
}

// failAtItsTurn makes the next upgrade fail after the old daemon has let go.
func (d *daemon) failAtItsTurn(before string) {
	d.t.Helper()
	replace(d.t, d.program, "#!/bin/sh\necho '{\"ready\":true}' >&3\nread go <&3\n"+before+"\nexit 8\n")
	out, err := d.tryCommand("upgrade")
	if err == nil || !strings.Contains(out, "exit status 8") {
		d.t.Fatalf("upgrade: %v\n%s", err, out)
	}
}

func (d *daemon) signal(pid int, sig syscall.Signal) {
	d.t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) state(name string) string { return filepath.Join(d.dataDir, ".tenement", name) }

// waitUpgraded waits until another process than old says that it serves.
func (d *daemon) waitUpgraded(old int) {
	d.t.Helper()
	pid := 0
	runtimetest.Eventually(d.t, "another daemon serves", func() bool {
		pid = d.listener()
		return pid != 0 && pid != old
	})
	d.serving = pid
}

// listener is the process at the other end of the daemon's socket.
func (d *daemon) listener() int {
	conn, err := net.Dial("unix", d.state("ten.sock"))
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		pid = peer(int(fd))
	})
	return pid
}

// TestSignals: SIGHUP reloads, SIGUSR2 upgrades, and neither ends a daemon that was
// upgraded and serves out what it had begun.
func TestSignals(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	d := startText(t, echoing("echo", ""))
	d.command("spawn", "echo:alice")
	tenant := d.pid("echo:alice")
	writeConfig(t, d.config, echoing("more", "create = 'on-request'"))
	d.signal(d.serving, syscall.SIGHUP)
	runtimetest.Eventually(t, "the new service is served", func() bool {
		return d.do(http.MethodGet, "bob.more.localhost", "/", "").status == http.StatusOK
	})
	if got := d.listener(); got != d.serving {
		t.Fatalf("%d serves, not %d: SIGHUP is no upgrade", got, d.serving)
	}
	socket := d.webSocket("alice.echo.localhost")
	socket.echo("before")
	old := d.serving
	d.signal(old, syscall.SIGUSR2)
	d.waitUpgraded(old)
	d.command("spawn", "echo:carol")
	d.sharesNoSocket(d.pid("echo:carol"))
	for range 3 {
		d.signal(old, syscall.SIGUSR2)
		d.signal(old, syscall.SIGHUP)
		socket.echo("after")
	}
	d.command("ps")
	if d.pid("echo:alice") != tenant {
		t.Error("the tenant was restarted")
	}
	socket.echo("at the end")
	if got := d.listener(); got != d.serving {
		t.Errorf("%d serves, not %d", got, d.serving)
	}
}

// sharesNoSocket checks that a tenant has inherited none of the daemon's.
func (d *daemon) sharesNoSocket(tenant int) {
	d.t.Helper()
	sockets := func(pid int) map[string]bool {
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil || len(links) == 0 {
			d.t.Fatal("no descriptors", err)
		}
		found := make(map[string]bool)
		for _, link := range links {
			if target, _ := os.Readlink(link); strings.HasPrefix(target, "socket:") {
				found[target] = true
			}
		}
		return found
	}
	ours := sockets(d.serving)
	for socket := range sockets(tenant) {
		if ours[socket] {
			d.t.Errorf("a tenant has the daemon's %s", socket)
		}
	}
}

// lingering is a connection that the old daemon closes when it takes no more requests.
func (d *daemon) lingering() net.Conn {
	d.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(d.base, "http://"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.Close() })
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	resp.Body.Close()
	return conn
}

// TestHeldThroughUpgrade: what waits for a slow start while the daemons change is served,
// and what was opened on the way lasts as long as if it had been opened before.
func TestHeldThroughUpgrade(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	gate := filepath.Join(t.TempDir(), "gate")
	d := startText(t, fmt.Sprintf("[service.slow]\ncommand = \"sh -c 'while [ ! -e %s ]; do sleep 0.05; done; exec %s'\"\n%s", gate,
		strings.Join(runtimetest.TenantCommand(), " "), fmt.Sprintf("health = '/health'\nstartup_timeout = 60\nwake_timeout = 60\nreadable = [%q, %q]\n", filepath.Dir(gate), runtimetest.TenantCommand()[0])))
	for _, id := range []string{"slow:alice", "slow:bob"} {
		d.command("spawn", id, "--no-wake")
	}
	d.command("weight", "slow:bob", "100")
	conn := d.lingering()
	posted := make(chan answer, 1)
	go func() { posted <- d.do(http.MethodPost, "slow.localhost", "/echo", "a body") }()
	opened := make(chan webSocket, 1)
	go func() { opened <- d.webSocket("alice.slow.localhost") }()
	for _, id := range []string{"slow:alice", "slow:bob"} {
		runtimetest.Eventually(t, id+" is starting", func() bool {
			return strings.Contains(d.command("inspect", id), "starting")
		})
	}
	old := d.serving
	d.upgrade()
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	socket := runtimetest.Within(t, "WebSocket", opened)
	socket.echo("opened")
	if a := runtimetest.Within(t, "answer", posted); a.status != http.StatusOK || a.body != "a body" {
		t.Errorf("%d %q", a.status, a.body)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection was not closed")
	}
	for n := range 200 {
		socket.echo(fmt.Sprint("still ", n))
	}
	if status(t, old, "State") == "" {
		t.Error("the old daemon has ended before what it served")
	}
	if err := socket.conn.CloseNow(); err != nil {
		t.Error(err)
	}
	waitGone(t, old)
}

// TestOtherDataDirectory: a daemon cannot take over what is not in its data directory.
func TestOtherDataDirectory(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	dir := t.TempDir()
	d := startText(t, "[settings]\ndata_dir = '"+dir+"'\n"+echoing("echo", ""), "--data-dir", "")
	d.dataDir = dir
	d.command("spawn", "echo:alice")
	text := strings.Replace(read(t, d.config), d.dataDir, t.TempDir(), 1)
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := d.tryCommand("upgrade")
	if err == nil || !strings.Contains(out, "data_dir") {
		t.Errorf("upgrade: %v\n%s", err, out)
	}
	d.get(http.StatusOK, "alice.echo.localhost", "/")
}

// TestUsedThroughUpgrade: what a connection of the old daemon uses is not idle, whichever
// daemon has it.
func TestUsedThroughUpgrade(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprintf("fails=%v", fails), func(t *testing.T) {
			t.Parallel()
			d := startText(t, echoing("echo", "idle_timeout = 1"))
			d.command("spawn", "echo:alice")
			d.command("spawn", "echo:bob", "--no-wake")
			tenant := d.pid("echo:alice")
			socket := d.webSocket("alice.echo.localhost")
			socket.echo("before")
			if fails {
				d.failAtItsTurn("")
			} else {
				d.upgrade()
			}
			d.get(http.StatusOK, "bob.echo.localhost", "/") // later than alice's
			runtimetest.Eventually(t, "bob sleeps", func() bool {
				return strings.Contains(d.command("inspect", "echo:bob"), "asleep")
			})
			socket.echo("after")
			if d.pid("echo:alice") != tenant {
				t.Error("it was put to sleep")
			}
			if err := socket.conn.CloseNow(); err != nil {
				t.Error(err)
			}
			waitGone(t, tenant)
		})
	}
}

// TestUpgradedManyTimes: nothing piles up, neither in the daemon nor on the disk, and the
// old ones end. What fails on the way leaves nothing, either.
func TestUpgradedManyTimes(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	d := startText(t, echoing("echo", ""))
	d.command("spawn", "echo:alice")
	program := d.program
	fds := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.serving))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	once := func(fail bool) {
		if fail {
			d.failAtItsTurn("")
			replaceByLink(t, d.ten, program)
			return
		}
		old := d.serving
		d.upgrade()
		waitGone(t, old)
		runtimetest.Eventually(t, "the relay is closed", func() bool {
			_, err := os.Stat(d.state("relay.sock"))
			return os.IsNotExist(err)
		})
	}
	for _, fail := range []bool{false, true} {
		once(fail)
		d.get(http.StatusOK, "alice.echo.localhost", "/")
		before := fds()
		for range 5 {
			once(fail)
		}
		d.get(http.StatusOK, "alice.echo.localhost", "/")
		allowed := 2
		if fail {
			allowed += 5 * 4 // a failure costs the descriptors of each process until that has ended: its pidfd, its network and ways into both
		}
		if after := fds(); after > before+allowed {
			t.Errorf("failing %v: %d descriptors, before %d", fail, after, before)
		}
	}
	if n := strings.Count(read(t, fmt.Sprintf("/proc/%d/environ", d.serving)), "TENEMENT_HANDOVER="); n != 1 {
		t.Errorf("a later daemon is told %d times of an earlier one", n)
	}
	left, err := filepath.Glob(d.state("*~"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	for _, name := range strings.Split(d.get(http.StatusOK, "alice.echo.localhost", "/env").body, ",") {
		if strings.Contains(name, "HANDOVER") {
			t.Errorf("a tenant sees %s", name)
		}
	}
}

func replaceByLink(t *testing.T, good, path string) {
	t.Helper()
	fresh := path + ".new"
	if err := os.Link(good, fresh); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, path); err != nil {
		t.Fatal(err)
	}
}

// TestStoppedDuringUpgrade: whoever is told to end ends, and what it serves as well,
// however far an upgrade has come.
func TestStoppedDuringUpgrade(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	for name, ready := range map[string]string{
		"before it is ready": "", "at its turn": "echo '{\"ready\":true}' >&3\nread go <&3\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startText(t, echoing("echo", ""))
			d.command("spawn", "echo:alice")
			tenant := d.pid("echo:alice")
			there := filepath.Join(t.TempDir(), "there")
			replace(t, d.program, "#!/bin/sh\n"+ready+"echo $$ >"+there+".new\nmv "+there+".new "+there+"\nexec sleep 1000\n")
			type result struct {
				out string
				err error
			}
			upgraded := make(chan result, 1)
			go func() {
				out, err := d.tryCommand("upgrade")
				upgraded <- result{out, err}
			}()
			runtimetest.Eventually(t, "the new program runs", func() bool { _, err := os.Stat(there); return err == nil })
			if ready != "" {
				if out, err := d.tryCommand("ps"); err == nil || !strings.Contains(out, "another daemon") {
					t.Errorf("the API: %v\n%s", err, out)
				}
			}
			d.signal(d.serving, syscall.SIGTERM)
			r := runtimetest.Within(t, "end of the upgrade", upgraded)
			if r.err == nil || strings.Contains(r.out, "said nothing") {
				t.Errorf("upgrade: %v\n%s", r.err, r.out)
			}
			waitGone(t, tenant)
			d.waitReaped()
			pid, err := strconv.Atoi(strings.TrimSpace(read(t, there)))
			if err != nil {
				t.Fatal(err)
			}
			waitGone(t, pid)
		})
	}
}

// TestReloadDuringUpgrade: a reload that comes while an upgrade fails holds for the
// daemon that serves then.
func TestReloadDuringUpgrade(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	d := startText(t, echoing("echo", ""))
	d.command("spawn", "echo:alice")
	writeConfig(t, d.config, echoing("more", ""))
	d.failAtItsTurn(fmt.Sprintf("kill -HUP %d\nsleep 1", d.serving))
	runtimetest.Eventually(t, "the new service is known", func() bool {
		_, err := d.tryCommand("spawn", "more:alice")
		return err == nil
	})
	d.get(http.StatusOK, "alice.more.localhost", "/")
}

// TestKeepAnswersWhoWaits: a daemon that leaves its tenants running does not wait for
// those who wait for them.
func TestKeepAnswersWhoWaits(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	d := startText(t, echoing("slow", "startup_timeout = 600\nwake_timeout = 600", "-boot=600s"), "--keep")
	d.command("spawn", "slow:alice", "--no-wake")
	answered := make(chan answer, 1)
	go func() { answered <- d.do(http.MethodGet, "alice.slow.localhost", "/", "") }()
	runtimetest.Eventually(t, "it has a process", func() bool {
		return strings.Contains(d.command("inspect", "slow:alice"), "\npid ")
	})
	tenant := d.pid("slow:alice")
	t.Cleanup(func() { _ = syscall.Kill(tenant, syscall.SIGKILL) })
	d.signal(d.serving, syscall.SIGTERM)
	if a := runtimetest.Within(t, "answer", answered); a.status != http.StatusServiceUnavailable {
		t.Errorf("status %d", a.status)
	}
	d.waitReaped()
	if status(t, tenant, "State") == "" {
		t.Error("the tenant was not kept")
	}
}

// TestRelayIsThereAgain: a daemon that still serves its predecessor goes on doing so
// when its own upgrade fails.
func TestRelayIsThereAgain(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	d := startText(t, echoing("echo", ""))
	d.command("spawn", "echo:alice")
	socket := d.webSocket("alice.echo.localhost")
	socket.echo("before")
	d.upgrade()
	d.failAtItsTurn("mv " + d.state("relay.sock") + " " + d.state("relay.sock") + ".dead")
	conn, err := net.DialTimeout("unix", d.state("relay.sock"), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	socket.echo("after")
}

package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/runtime/runtimetest"
)

// launchOnDisk starts a daemon whose data directory is a file system of its own, in a
// namespace of its own: both disappear with the daemon. prepare is a shell command, with
// the data directory as $0, that runs before the daemon; config is more of its
// configuration, of the service echo.
func launchOnDisk(t *testing.T, size, prepare, config string) *daemon {
	t.Helper()
	requireLinux(t)
	requireRoot(t)
	if err := build(); err != nil {
		t.Fatal(err)
	}
	file, ten, dir := filepath.Join(t.TempDir(), "tenement.toml"), filepath.Join(root, "bin", "ten"), t.TempDir()
	writeConfig(t, file, config)
	script := "mount -t tmpfs -o mode=0700,size=" + size + ` tmpfs "$0" && ` + prepare + ` && exec "$@"`
	cmd := exec.Command("sh", "-c", script, dir, ten)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	d := launch(t, cmd, file, dir, "127.0.0.1:0")
	d.ten, d.mounts = ten, fmt.Sprintf("/proc/%d/root", d.process.Pid)
	return d
}

func requireRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), "root"):
		t.Fatal("only root can mount a file system: run the tests as root")
	default:
		t.Skip("only root can mount a file system: run the tests as root")
	}
}

// mount changes what the daemon sees.
func (d *daemon) mount(args ...string) {
	d.t.Helper()
	command := append([]string{"--mount", "--target", fmt.Sprint(d.process.Pid), "mount"}, args...)
	if out, err := exec.CommandContext(d.t.Context(), "nsenter", command...).CombinedOutput(); err != nil {
		d.t.Fatalf("mount %v: %v\n%s", args, err, out)
	}
}

// fill leaves no room on the disk until the file is removed that it returns.
func (d *daemon) fill() string {
	d.t.Helper()
	path := filepath.Join(d.files(), "filling")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	for size := 1 << 16; size > 0; {
		if _, err := file.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			d.t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// print has the tenant of host print a line that often.
func (d *daemon) print(host string, times int) {
	d.t.Helper()
	line := url.QueryEscape(strings.Repeat("x", 1000))
	for range times {
		d.get(http.StatusOK, host, "/print?out="+line)
	}
}

const (
	diskRefuses = "the registry cannot be written"
	diskTakes   = "the registry can be written again"
	logsLost    = "what instances print cannot be stored"
	logsStored  = "what instances print is stored again"
)

// TestFullDisk: what is awake is served, what needs a write is refused, the log says so
// once, and with room again all goes on by itself.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	requireCgroups(t)
	d := launchOnDisk(t, "6m", "true", "")
	d.waitServing()
	client := d.api()
	d.populate()
	d.command("spawn", "echo:alice")
	pids := d.pids()
	room := d.fill()

	refused := d.spawnUntilRefused(client)
	if tenement.CodeOf(refused) != tenement.CodeUnavailable || !strings.Contains(tenement.HintOf(refused), "is full: make room") {
		t.Errorf("refused with %v, hint %q", refused, tenement.HintOf(refused))
	}
	if out, err := d.tryCommand("spawn", "notes:another"); err == nil || !strings.Contains(out, "make room") {
		t.Errorf("ten spawn: %v\n%s", err, out)
	}
	runtimetest.Eventually(t, "the logs are full, too", func() bool {
		d.print("alice.echo.localhost", 20)
		return d.output.count(logsLost) > 0
	})
	complaints := func() int { return d.output.count("level=ERROR") + d.output.count("level=WARN") }
	before := complaints()
	for range 20 {
		d.get(http.StatusOK, "alice.notes.localhost", "/notes")
		a := d.get(http.StatusServiceUnavailable, "carol.notes.localhost", "/notes")
		if a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if more := complaints() - before; more > 0 {
		t.Errorf("%d complaints more, about each request", more)
	}
	if err := client.Restart(t.Context(), alice); tenement.CodeOf(err) != tenement.CodeUnavailable {
		t.Errorf("a restart that could not be finished was begun: %v", err)
	}
	if _, err := client.Upgrade(t.Context()); tenement.CodeOf(err) != tenement.CodeUnavailable {
		t.Errorf("an upgrade that could not be finished was begun: %v", err)
	}
	if err := client.Stop(t.Context(), bob); err != nil { // which can be done, but not written down
		t.Error(err)
	}
	if st, err := client.Instance(t.Context(), carol); err != nil || st.State != tenement.Asleep || st.Restarts != 0 {
		t.Errorf("carol: %+v, %v", st, err)
	}
	if running := tenants(t, d.dataDir); len(running) != 2 || running[alice] == nil {
		t.Errorf("processes %v", running)
	}
	d.wantSaid(map[string]int{diskRefuses: 1, diskTakes: 0, logsLost: 1, logsStored: 0})

	if err := os.Remove(room); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "the daemon finds out by itself", func() bool { return d.output.count(diskTakes) > 0 })
	d.wantConsistent() // nothing is on record that has ended meanwhile
	d.get(http.StatusOK, "carol.notes.localhost", "/notes")
	d.command("spawn", "notes:another")
	echo := tenement.InstanceID{Service: "echo", Name: "alice"}
	runtimetest.Eventually(t, "the log tells what it lacks", func() bool {
		d.print("alice.echo.localhost", 1)
		return strings.Contains(strings.Join(logsOf(d, client, echo), "\n"), "lines were lost here")
	})
	d.wantSaid(map[string]int{diskRefuses: 1, diskTakes: 1, logsLost: 1, logsStored: 1})
	if now := d.pids(); now[alice] != pids[alice] || now[echo] != pids[echo] {
		t.Errorf("processes %v, before %v", now, pids)
	}
	if err := client.Delete(t.Context(), echo, true); err != nil { // it keeps no notes
		t.Error(err)
	}
	d.wantSound(kept)
}

// TestFullDiskInQuiet: what is idle is not put to sleep, for it could not be woken; and
// that there is room is found out although nobody wants any.
func TestFullDiskInQuiet(t *testing.T) {
	t.Parallel()
	const idle = time.Second
	d := launchOnDisk(t, "6m", "true", "idle_timeout = 1")
	d.waitServing()
	client := d.api()
	room := d.fill()
	_ = d.spawnUntilRefused(client)
	if err := os.Remove(room); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "it is found out", func() bool { return d.output.count(diskTakes) > 0 })

	echo := tenement.InstanceID{Service: "echo", Name: "alice"}
	d.command("spawn", echo.String())
	d.fill()
	for n := 0; d.output.count(diskRefuses) < 2; n++ { // and meanwhile it does not fall asleep
		d.get(http.StatusOK, "alice.echo.localhost", "/pid")
		_, _ = client.Spawn(t.Context(), tenement.InstanceID{Service: "notes", Name: fmt.Sprint("filling", n)}, api.SpawnOptions{})
	}
	var st api.Instance
	runtimetest.Eventually(t, "it is idle for longer than it needs to fall asleep", func() bool {
		var err error
		st, err = client.Instance(t.Context(), echo)
		return err != nil || st.State != tenement.Ready || time.Since(st.LastActiveAt) > 2*idle
	})
	if st.State != tenement.Ready {
		t.Errorf("it is %s, and cannot be woken", st.State)
	}
}

// spawnUntilRefused registers instances until there is no room.
func (d *daemon) spawnUntilRefused(client *api.Client) error {
	d.t.Helper()
	for n := range 10_000 {
		id := tenement.InstanceID{Service: "echo", Name: fmt.Sprint("filling", n)}
		if _, err := client.Spawn(d.t.Context(), id, api.SpawnOptions{}); err != nil {
			return err
		}
	}
	d.t.Fatal("the disk does not fill up")
	return nil
}

func (d *daemon) wantSaid(times map[string]int) {
	d.t.Helper()
	for text, want := range times {
		if got := d.output.count(text); got != want {
			d.t.Errorf("said %d times, want %d: %s", got, want, text)
		}
	}
}

// TestReadOnlyDirectories: of a service, whose new instances are refused. A disk on which
// files are open for writing, as the registry always is, is not made read-only by mount
// (EBUSY), but by the kernel after an error: what the registry then says is tested in
// the store, with the same errors.
func TestReadOnlyDirectories(t *testing.T) {
	t.Parallel()
	requireCgroups(t)
	d := launchOnDisk(t, "6m", "true", "")
	d.waitServing()
	client := d.api()
	d.populate()
	pids := d.pids()
	directory := filepath.Join(d.dataDir, "notes")
	d.mount("--bind", directory, directory)
	d.mount("-o", "remount,bind,ro", directory)

	if out, err := d.tryCommand("spawn", dave.String()); err == nil || !strings.Contains(out, "is read-only") {
		t.Errorf("ten spawn: %v\n%s", err, out)
	}
	for range 3 {
		d.get(http.StatusServiceUnavailable, "dave.notes.localhost", "/notes")
	}
	if st, err := client.Instance(t.Context(), dave); err != nil || st.Restarts != 0 || st.State == tenement.Failed {
		t.Errorf("dave: %+v, %v", st, err)
	}
	d.get(http.StatusOK, "alice.notes.localhost", "/notes")
	d.mount("-o", "remount,bind,rw", directory)
	runtimetest.Eventually(t, "dave can be woken", func() bool {
		return d.do(http.MethodGet, "dave.notes.localhost", "/notes", "").status == http.StatusOK
	})
	d.wantPIDs(pids)
	d.wantSound(kept)
}

// TestStartOnReadOnlyDisk is refused, with the way out.
func TestStartOnReadOnlyDisk(t *testing.T) {
	t.Parallel()
	d := launchOnDisk(t, "1m", `mkdir -m 0700 "$0/.tenement" && mount -o remount,ro "$0"`, "")
	d.killed = true // that it fails is right
	err := runtimetest.Within(t, "the end of the daemon", d.ended)
	d.ended <- err
	if err == nil || d.output.count("is read-only") == 0 || d.output.count("mount it writable") == 0 {
		t.Errorf("it ended with %v", err)
	}
}

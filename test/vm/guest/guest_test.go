// Package guest is what package vm runs inside its machine: one test after each boot.
// Elsewhere it has no tests, for they would change the machine they run on.
package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	payload    = "/root/lane" // where the machine unpacks what it was given
	program    = "/srv/notes/notes"
	ten        = "/usr/local/bin/ten"
	configFile = "/etc/tenement/tenement.toml"
	dataDir    = "/var/lib/tenement"
	service    = "tenement.service"
	keeper     = "tenement-tenants.service"
	socket     = "tenement.socket"
	host       = "alice.notes.localhost"
)

const configuration = `[settings]
domain = "localhost"

[service.notes]
command = "sh -c 'ulimit -Sn >$DATA_DIR/limit; exec ` + program + `'"
health = "/health"
idle_timeout = 0
readable = ["/srv/notes"]
memory_limit_mb = 256
pids_limit = 100

[service.notes.env]
DATA_DIR = "{data_dir}/{id}"
`

// none is a set of capabilities, as /proc has it.
const none = "0000000000000000"

// patience bounds each wait, on a machine that is emulated and busy.
const patience = 3 * time.Minute

func TestMain(m *testing.M) {
	if self, err := os.Executable(); err != nil || filepath.Dir(self) != payload {
		fmt.Println("these tests are run by test/vm, in a machine of their own")
		return
	}
	os.Exit(m.Run())
}

// step is one thing that happens to the machine, and what must then be so.
type step struct {
	name string
	run  func(t *testing.T)
}

// steps takes them in turn; after one that failed the others would only repeat it.
func steps(t *testing.T, list ...step) {
	t.Helper()
	for _, s := range list {
		if !t.Run(s.name, s.run) {
			t.Logf("the journal's end:\n%s", run(t, "journalctl", "-b", "-n", "120", "-o", "short-monotonic", "--no-pager"))
			return
		}
	}
}

// try runs a program and gives what it printed and its exit status.
func try(t *testing.T, command ...string) (stdout, stderr string, status int) {
	t.Helper()
	return tryFor(t, patience, command...)
}

func tryFor(t *testing.T, limit time.Duration, command ...string) (stdout, stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	if e := cmd.Run(); e != nil && cmd.ProcessState == nil {
		t.Fatal(e)
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// run is try for a program that must succeed.
func run(t *testing.T, command ...string) string {
	t.Helper()
	stdout, stderr, status := try(t, command...)
	if status != 0 {
		t.Fatalf("%s: exit status %d\n%s%s", strings.Join(command, " "), status, stdout, stderr)
	}
	return strings.TrimSpace(stdout)
}

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// property is one of a unit's, as systemd sees it.
func property(t *testing.T, unit, name string) string {
	t.Helper()
	return run(t, "systemctl", "show", "--value", "--property="+name, unit)
}

// active waits until the service serves.
func active(t *testing.T) {
	t.Helper()
	eventually(t, service+" is active", func() bool { return property(t, service, "ActiveState") == "active" })
}

// mainPID is the daemon.
func mainPID(t *testing.T) int {
	t.Helper()
	pid, err := strconv.Atoi(property(t, service, "MainPID"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// replaced waits for a daemon other than old.
func replaced(t *testing.T, old int) {
	t.Helper()
	eventually(t, fmt.Sprintf("a daemon other than %d", old), func() bool {
		pid := mainPID(t)
		return pid != 0 && pid != old
	})
	active(t)
}

// tenants are the processes of the notes program, whatever its path is where they see it.
func tenants(t *testing.T) []int {
	t.Helper()
	want, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	list, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, link := range list {
		if target, err := os.Stat(link); err == nil && os.SameFile(target, want) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// tenant is the one process there should be.
func tenant(t *testing.T) int {
	t.Helper()
	pids := tenants(t)
	if len(pids) != 1 {
		t.Fatalf("%d tenants are running: %v", len(pids), pids)
	}
	return pids[0]
}

// ask sends one request to alice through the front's socket; it waits as long as a
// queued connection has to.
func ask(t *testing.T, method, body string) (int, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+host+"/notes", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "text/plain")
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:8080")
	}}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text), err
}

// writes leaves a note with alice.
func writes(t *testing.T, note string) {
	t.Helper()
	if status, text, err := ask(t, http.MethodPost, note); err != nil || status != http.StatusCreated {
		t.Fatalf("note: %d %s %v", status, text, err)
	}
}

// remembers wants alice to answer with exactly these notes.
func remembers(t *testing.T, notes ...string) {
	t.Helper()
	status, text, err := ask(t, http.MethodGet, "")
	if err != nil || status != http.StatusOK {
		t.Fatalf("notes: %d %s %v", status, text, err)
	}
	var list []struct{ Text string }
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("notes: %s: %v", text, err)
	}
	var got []string
	for _, n := range list {
		got = append(got, n.Text)
	}
	slices.Sort(got)
	slices.Sort(notes)
	if !slices.Equal(got, notes) {
		t.Fatalf("alice has the notes %q, want %q", got, notes)
	}
}

// field is a line of /proc/PID/status or limits, after its name.
func field(t *testing.T, pid int, file, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	t.Fatalf("no %q in %s", name, text)
	return ""
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

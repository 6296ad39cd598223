package daemon_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
)

func requireSandbox(t *testing.T) {
	t.Helper()
	_, err := runtime.FindRunsc()
	switch {
	case err == nil && os.Getuid() == 0:
	case slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), "runsc"):
		t.Fatal("not root, or ", err)
	default:
		t.Skipf("not root, or %v: run tools/runsc.sh, and put the directory that it prints into PATH", err)
	}
}

// TestSandboxes takes one instance through its life in a sandbox, across daemons.
func TestSandboxes(t *testing.T) {
	t.Parallel()
	requireSandbox(t)
	dir := shortDir(t)
	text := settings + service("api", "isolation = 'sandbox'\nstartup_timeout = 60")
	s := buildWith(t, dir, text, true)
	s.spawn("api:alice")
	if got := s.get("http://alice.api.localhost/"); got != "api:alice" {
		t.Errorf("answered %q", got)
	}
	pid := s.instance("api:alice").PID
	s.stop()
	s = buildIn(t, dir, text)
	if now := s.instance("api:alice").PID; now != pid || s.get("http://alice.api.localhost/") != "api:alice" {
		t.Errorf("the next daemon has process %d, was %d", now, pid)
	}
	if err := s.api.Stop(t.Context(), id(t, "api:alice")); err != nil {
		t.Fatal(err)
	}
	gone(t, pid)
	if _, err := os.Stat(filepath.Join(dir, "api", "alice", "terminated")); err != nil {
		t.Errorf("the program did not see SIGTERM: %v", err)
	}
	if got := s.wants("http://alice.api.localhost/exit?code=7", http.StatusBadGateway); got == "" {
		t.Error("no word about the end of the program")
	}
	// The crash may be noticed only after the answer.
	runtimetest.Eventually(t, "api:alice is ready again, with nothing to say", func() bool {
		now := s.instance("api:alice")
		return now.State == tenement.Ready && now.Reason == ""
	})
	s.stop()
	left, err := filepath.Glob("/run/tenement/*/api.alice.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, bundle := range left {
		if config, err := os.ReadFile(filepath.Join(bundle, "config.json")); err == nil && strings.Contains(string(config), strconv.Quote(filepath.Join(dir, "api", "alice"))) {
			t.Errorf("%s is left", bundle)
		}
	}
}

// taskBundles are those of commands in sandboxes of their own, of an instance below dir.
func taskBundles(t *testing.T, dir string) (found []string) {
	t.Helper()
	all, err := filepath.Glob("/run/tenement/*/api.alice.*.task")
	if err != nil {
		t.Fatal(err)
	}
	for _, bundle := range all {
		if config, err := os.ReadFile(filepath.Join(bundle, "config.json")); err == nil && strings.Contains(string(config), filepath.Join(dir, "api", "alice")) {
			found = append(found, bundle)
		}
	}
	return found
}

func TestCommandsInSandboxes(t *testing.T) {
	t.Parallel()
	requireSandbox(t)
	s := build(t, settings+service("api", "isolation = 'sandbox'\nstartup_timeout = 60\nidle_timeout = 0\nopen_files_limit = 100\n[service.api.env]\nPLAN = 'free'"))
	s.spawn("api:alice")
	s.set("api:alice", api.SettingsChange{Env: map[string]any{"PLAN": "pro {id}"}, Secrets: map[string]any{"TOKEN": hunter2}})
	where := filepath.Join(s.dir, "api", "alice")

	// While it sleeps, in a sandbox of its own.
	status, out, errs := s.execute((*api.Client).Run, "api:alice", "typed\n", `read line; echo "$line" > note; echo "$PLAN|$TOKEN|$TENEMENT_INSTANCE|$PWD|$DATA_DIR|$(ulimit -n)"; echo trouble >&2; dmesg | grep -q gVisor && exit 7`)
	if want := "pro alice|" + hunter2 + "|alice|" + where + "|" + where + "|100\n"; status != 7 || out != want || errs != "trouble\n" {
		t.Errorf("run: %d %q %q, want %q", status, out, errs, want)
	}
	if got := s.instance("api:alice").State; got != tenement.Asleep {
		t.Errorf("it is %s", got)
	}
	runtimetest.Eventually(t, "nothing is left of its sandbox", func() bool { return taskBundles(t, s.dir) == nil })

	// Where it is: beside process 1, which is the program.
	status, out, errs = s.execute((*api.Client).Exec, "api:alice", "", `cat note; hostname; id -u; ulimit -n; kill -0 1 && tr '\0' ' ' < /proc/1/cmdline; grep -h ^Cap /proc/self/status | sort -u | cut -f2`)
	lines := strings.Split(out, "\n")
	uid := strconv.Itoa(int(ownerOf(must(os.Stat(filepath.Join(where, "note"))))))
	if status != 0 || len(lines) < 5 || !slices.Equal(lines[:4], []string{"typed", "alice", uid, "100"}) || !strings.Contains(lines[4], "tenant") {
		t.Errorf("exec: %d %q %q", status, out, errs)
	}
	for _, caps := range lines[min(5, len(lines)):] {
		if strings.Trim(caps, "0") != "" {
			t.Errorf("capabilities %s", caps)
		}
	}
	if in := s.instance("api:alice"); in.State != tenement.Ready {
		t.Errorf("it is %s", in.State)
	}
	for _, how := range []executor{(*api.Client).Exec, (*api.Client).Run} {
		if status, _, _ = s.execute(how, "api:alice", "", "kill -TERM $$"); status != 128+15 {
			t.Errorf("ended by a signal: status %d", status)
		}
		if status, out, _ = s.execute(how, "api:alice", strings.Repeat("x", 1<<20), "wc -c; sleep 1000 &"); status != 0 || strings.TrimSpace(out) != "1048576" {
			t.Errorf("with a child left: %d %q", status, out)
		}
		_, err := how(s.api, t.Context(), id(t, "api:alice"), api.ExecRequest{Command: []string{"no-such-program"}}, api.ExecStreams{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard})
		if tenement.CodeOf(err) != tenement.CodeNotFound {
			t.Errorf("a program that is not there: %v", err)
		}
	}
	s.wantsNoLeases("api:alice")
	if got := s.get("http://alice.api.localhost/"); got != "api:alice" {
		t.Errorf("afterwards it answers %q", got)
	}
}

// TestCommandsInSandboxesEnd with their client, with their instance's process, by signals.
func TestCommandsInSandboxesEnd(t *testing.T) {
	t.Parallel()
	requireSandbox(t)
	s := build(t, settings+service("api", "isolation = 'sandbox'\nstartup_timeout = 60\nidle_timeout = 0"))
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/health")
	alice := id(t, "api:alice")
	type end struct {
		status int
		err    error
	}
	begin := func(how executor, script string) (cancel func(), signals chan int, ended chan end) {
		ctx, cancel := context.WithCancel(t.Context())
		endless, _ := io.Pipe()
		t.Cleanup(func() { _ = endless.Close() })
		printed, stdout := io.Pipe()
		ended, signals = make(chan end, 1), make(chan int, 1)
		go func() {
			status, err := how(s.api, ctx, alice, api.ExecRequest{Command: []string{"sh", "-c", script}}, api.ExecStreams{Stdin: endless, Stdout: stdout, Stderr: io.Discard, Signals: signals})
			ended <- end{status, err}
		}()
		var word string
		if _, err := fmt.Fscan(printed, &word); err != nil {
			t.Fatal(err)
		}
		return cancel, signals, ended
	}
	alive := func() string {
		t.Helper()
		_, out, _ := s.execute((*api.Client).Exec, "api:alice", "", `for p in /proc/[0-9]*; do tr '\0' ' ' < $p/cmdline; echo; done | grep -c '^sleep 100[0]'`)
		return strings.TrimSpace(out)
	}
	cancel, _, ended := begin((*api.Client).Exec, "sleep 1000 & echo on; sleep 1000")
	if got := alive(); got != "2" {
		t.Errorf("%s processes of it are there", got)
	}
	cancel()
	if e := runtimetest.Within(t, "end of the client", ended); tenement.CodeOf(e.err) != tenement.CodeCanceled {
		t.Error(e.err)
	}
	runtimetest.Eventually(t, "nothing is left of it", func() bool { return alive() == "0" })

	cancel, _, ended = begin((*api.Client).Run, "echo on; exec sleep 1000")
	if len(taskBundles(t, s.dir)) != 1 {
		t.Error("it has no sandbox of its own")
	}
	cancel()
	_ = runtimetest.Within(t, "end of the client", ended)
	runtimetest.Eventually(t, "nothing is left of its sandbox", func() bool { return taskBundles(t, s.dir) == nil })

	for _, how := range []executor{(*api.Client).Exec, (*api.Client).Run} {
		_, signals, ended := begin(how, "trap 'exit 9' TERM; echo on; while :; do sleep 0.1; done")
		signals <- 15
		if e := runtimetest.Within(t, "end by a signal", ended); e.err != nil || e.status != 9 {
			t.Errorf("status %d, %v", e.status, e.err)
		}
	}

	// With its instance's process.
	_, _, ended = begin((*api.Client).Exec, "trap '' TERM; echo on; while :; do sleep 1000; done")
	if err := syscall.Kill(s.instance("api:alice").PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := runtimetest.Within(t, "end with the instance", ended); e.err != nil || e.status != 128+9 {
		t.Errorf("status %d, %v", e.status, e.err)
	}
	s.wantsNoLeases("api:alice")
}

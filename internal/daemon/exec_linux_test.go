package daemon_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/runtime/runtimetest"
)

func ownerOf(info os.FileInfo) uint32 {
	stat, _ := info.Sys().(*syscall.Stat_t)
	return stat.Uid
}

type executor func(*api.Client, context.Context, tenement.InstanceID, api.ExecRequest, api.ExecStreams) (int, error)

// execute runs a shell's words in an instance.
func (s *site) execute(how executor, text, stdin, script string) (status int, stdout, stderr string) {
	s.t.Helper()
	var out, errs bytes.Buffer
	status, err := how(s.api, timeout(s.t, 2*time.Minute), id(s.t, text), api.ExecRequest{Command: []string{"sh", "-c", script}},
		api.ExecStreams{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs})
	if err != nil {
		s.t.Fatalf("%s: %v (%s)", script, err, tenement.HintOf(err))
	}
	return status, out.String(), errs.String()
}

// wantsNoLeases wants what an ended command held to be free.
func (s *site) wantsNoLeases(text string) {
	s.t.Helper()
	runtimetest.Eventually(s.t, "no command holds "+text, func() bool { return s.instance(text).Leases == 0 })
}

func TestCommandsInInstances(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"process", "namespace"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			if isolation == "namespace" && os.Geteuid() != 0 {
				t.Skip("isolation by namespaces needs root")
			}
			s := build(t, settings+service("api", fmt.Sprintf("isolation = %q\nidle_timeout = 0\nopen_files_limit = 100\nlisten = \"fd\"\n[service.api.env]\nPLAN = \"free\"", isolation)))
			s.spawn("api:alice")
			s.set("api:alice", api.SettingsChange{Env: map[string]any{"PLAN": "pro {id}"}, Secrets: map[string]any{"TOKEN": hunter2}})

			// While it sleeps, run leaves it asleep.
			status, out, errs := s.execute((*api.Client).Run, "api:alice", "typed\n", `read line; echo "$line" > note; echo "$PLAN|$TOKEN|$TENEMENT_INSTANCE|$PWD|$DATA_DIR|$(ulimit -n)"; echo trouble >&2; exit 7`)
			where := filepath.Join(s.dir, "api", "alice")
			if want := "pro alice|" + hunter2 + "|alice|" + where + "|" + where + "|100\n"; status != 7 || out != want || errs != "trouble\n" {
				t.Errorf("run: %d %q %q, want %q", status, out, errs, want)
			}
			if got := s.instance("api:alice").State; got != tenement.Asleep {
				t.Errorf("it is %s", got)
			}

			// exec wakes it, and is where it is.
			status, out, errs = s.execute((*api.Client).Exec, "api:alice", "", `cat note; echo "$LISTEN_FDS"; hostname; cat /proc/self/cgroup | tail -1; id -u; readlink /proc/self/ns/net`)
			lines := strings.Split(out, "\n")
			if status != 0 || len(lines) < 6 || lines[0] != "typed" || lines[1] != "" {
				t.Fatalf("exec: %d %q %q", status, out, errs)
			}
			in := s.instance("api:alice")
			if in.State != tenement.Ready {
				t.Errorf("it is %s", in.State)
			}
			for line, file := range map[int]string{3: "cgroup", 5: "ns/net"} {
				path := fmt.Sprintf("/proc/%d/%s", in.PID, file)
				want := ""
				if file == "cgroup" {
					all := strings.Split(strings.TrimSpace(string(must(os.ReadFile(path)))), "\n")
					want = all[len(all)-1]
				} else {
					want = must(os.Readlink(path))
				}
				if lines[line] != want {
					t.Errorf("%s: %q, and the process has %q", file, lines[line], want)
				}
			}
			if info := must(os.Stat(filepath.Join(where, "note"))); isolation == "namespace" && lines[4] != fmt.Sprint(ownerOf(info)) {
				t.Errorf("uid %s, and run's was %d", lines[4], ownerOf(info))
			}
			if isolation == "namespace" && lines[2] != "alice" {
				t.Errorf("host name %q", lines[2])
			}
			s.wantsNoLeases("api:alice")

			// It sees the program; of settings that changed meanwhile both kinds have the new ones.
			s.set("api:alice", api.SettingsChange{Env: map[string]any{"PLAN": "new"}})
			want := fmt.Sprintf("new %d\n", in.PID)
			for _, how := range []executor{(*api.Client).Exec, (*api.Client).Run} {
				if status, out, errs = s.execute(how, "api:alice", "", fmt.Sprintf("echo $PLAN %d", in.PID)); out != want {
					t.Errorf("%d %q %q, want %q", status, out, errs, want)
				}
			}
			if status, _, errs = s.execute((*api.Client).Exec, "api:alice", "", fmt.Sprintf("test -e /proc/%[1]d && kill -0 %[1]d", in.PID)); status != 0 {
				t.Errorf("the program is not seen: %d %q", status, errs)
			}

			// A signal's status, a command that is not there, output left to a child.
			if status, _, _ = s.execute((*api.Client).Exec, "api:alice", "", "kill -TERM $$"); status != 128+15 {
				t.Errorf("ended by a signal: status %d", status)
			}
			if status, out, _ = s.execute((*api.Client).Exec, "api:alice", "", "sleep 1000 & echo $!"); status != 0 || len(out) < 2 {
				t.Errorf("with a child left: %d %q", status, out)
			}
			_, err := s.api.Exec(t.Context(), id(t, "api:alice"), api.ExecRequest{Command: []string{"no-such-program"}}, api.ExecStreams{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard})
			if tenement.CodeOf(err) != tenement.CodeNotFound {
				t.Errorf("a program that is not there: %v", err)
			}
			s.wantsNoLeases("api:alice")
		})
	}
}

// TestCommandsEndWithTheirClient: nothing is left of one whose client is gone, and its
// instance can be deleted then.
func TestCommandsEndWithTheirClient(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", "idle_timeout = 0"))
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/health")
	alice := id(t, "api:alice")
	for name, how := range map[string]executor{"exec": (*api.Client).Exec, "run": (*api.Client).Run} {
		ctx, cancel := context.WithCancel(t.Context())
		endless, typed := io.Pipe()
		printed, stdout := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			_, err := how(s.api, ctx, alice, api.ExecRequest{Command: []string{"sh", "-c", "echo $$; exec sleep 1000"}}, api.ExecStreams{Stdin: endless, Stdout: stdout, Stderr: io.Discard})
			ended <- err
		}()
		var pid int
		if _, err := fmt.Fscan(printed, &pid); err != nil {
			t.Fatal(err)
		}
		if name == "exec" && s.instance("api:alice").Leases != 1 {
			t.Error("exec is no activity")
		}
		if name == "run" {
			if err := s.api.Delete(t.Context(), alice, true); tenement.CodeOf(err) != tenement.CodeConflict {
				t.Errorf("deleted under a command: %v", err)
			}
		}
		cancel()
		if err := runtimetest.Within(t, "end of the client", ended); tenement.CodeOf(err) != tenement.CodeCanceled {
			t.Errorf("%s: %v", name, err)
		}
		_ = typed.Close()
		gone(t, pid)
	}
	s.wantsNoLeases("api:alice")
	runtimetest.Eventually(t, "it can be deleted", func() bool { return s.api.Delete(t.Context(), alice, true) == nil })
}

// TestCommandsEndWithTheDaemon, which does not wait for them.
func TestCommandsEndWithTheDaemon(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", "idle_timeout = 0"))
	s.spawn("api:alice")
	endless, typed := io.Pipe()
	defer typed.Close()
	printed, stdout := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := s.api.Run(context.WithoutCancel(t.Context()), id(t, "api:alice"), api.ExecRequest{Command: []string{"sh", "-c", "echo $$; exec sleep 1000"}}, api.ExecStreams{Stdin: endless, Stdout: stdout, Stderr: io.Discard})
		ended <- err
	}()
	var pid int
	if _, err := fmt.Fscan(printed, &pid); err != nil {
		t.Fatal(err)
	}
	s.stop()
	_ = runtimetest.Within(t, "end of the command", ended)
	gone(t, pid)
}

// TestCommandWithATerminal has one of the size that was asked for, and its keys.
func TestCommandWithATerminal(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"process", "namespace", "sandbox"} {
		if isolation == "namespace" && os.Geteuid() != 0 {
			continue
		}
		if isolation == "sandbox" {
			requireSandbox(t)
		}
		s := build(t, settings+service("api", fmt.Sprintf("isolation = %q\nidle_timeout = 0\nstartup_timeout = 60", isolation)))
		s.spawn("api:alice")
		for _, how := range []executor{(*api.Client).Exec, (*api.Client).Run} {
			testTerminal(t, s, isolation, how)
		}
		s.wantsNoLeases("api:alice")
	}
}

func testTerminal(t *testing.T, s *site, isolation string, how executor) {
	t.Helper()
	keys, typed := io.Pipe()
	printed, stdout := io.Pipe()
	sizes := make(chan api.TermSize, 1)
	type end struct {
		status int
		err    error
	}
	ended := make(chan end, 1)
	go func() {
		status, err := how(s.api, t.Context(), id(t, "api:alice"), api.ExecRequest{
			Command: []string{"sh", "-c", `test -t 0 && test -t 1 && test -t 2 && stty size < /dev/tty; trap 'stty size' WINCH; trap 'exit 5' INT; sleep 1000 & echo on; while :; do wait $!; done`},
			Size:    &api.TermSize{Rows: 33, Columns: 77},
		}, api.ExecStreams{Stdin: keys, Stdout: stdout, Stderr: io.Discard, Sizes: sizes})
		_ = stdout.Close()
		ended <- end{status, err}
	}()
	var seen strings.Builder
	awaits := func(want string) {
		t.Helper()
		buf := make([]byte, 100)
		for !strings.Contains(seen.String(), want) {
			n, err := printed.Read(buf)
			seen.Write(buf[:n])
			if err != nil {
				t.Fatalf("%s: %q is not in %q: %v", isolation, want, seen.String(), err)
			}
		}
	}
	awaits("33 77\r\non\r\n")
	sizes <- api.TermSize{Rows: 44, Columns: 88}
	awaits("44 88")
	go func() { _, _ = io.Copy(io.Discard, printed) }()
	_, _ = typed.Write([]byte{3}) // Ctrl-C
	if e := runtimetest.Within(t, "end of the command", ended); e.err != nil || e.status != 5 {
		t.Errorf("%s: status %d, %v", isolation, e.status, e.err)
	}
	_ = typed.Close()
}

package runtimetest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenement"
	"tenement/internal/runtime"
)

// Opener makes a runtime that keeps below dir what it must find again: a second one
// with the same dir is a restarted daemon's. close frees what is left when nothing runs
// any more.
type Opener func(dir string) (rt runtime.Runtime, close func() error, err error)

// Suite is what every runtime must do. Each test gets a fresh one of kind. The package's
// TestMain must call [TenantMain] and [DaemonMain].
func Suite(t *testing.T, kinds map[string]Opener, kind string) {
	for _, test := range append(adoption, []struct {
		name string
		run  func(*testing.T, *bench)
	}{
		{"freeze and thaw", testFreeze},
		{"kill ends what is frozen", testKillFrozen},
		{"what is frozen is told to end", testTerminateFrozen},
		{"kill ends a tree that forks on", testKillForking},
		{"usage", testUsage},
		{"open files", testOpenFiles},
		{"a limit that cannot be set", testImpossibleLimit},
		{"a limited file that is no program", testLimitedNoProgram},
		{"out of memory", testOutOfMemory},
		{"a child out of memory", testChildOutOfMemory},
		{"processes", testProcesses},
		{"share of the processor", testProcessorShare},
		{"weights", testWeights},
		{"serves", testServes},
		{"tells when it listens", testListening},
		{"notices", testNotices},
		{"notices of a stranger", testStrangersNotices},
		{"wishes", testWishes},
		{"passed socket", testPassed},
		{"passed socket is closed with its process", testPassedAndGone},
		{"environment is clean", testEnvironment},
		{"inherits no descriptor", testDescriptors},
		{"inherits no terminal", testSession},
		{"output reaches the writers", testOutput},
		{"exit status", testExitStatus},
		{"exit by signal", testExitSignal},
		{"SIGTERM is delivered", testTerminate},
		{"kill ends what left its group", testKillTree},
		{"release ends what the main process left", testReleaseTree},
		{"missing program", testMissingProgram},
		{"not a program", testNotExecutable},
		{"two instances, two ports", testPorts},
		{"adopt", testAdopt},
		{"adopt leaves a stranger alone", testAdoptStranger},
	}...) {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := &bench{t: t, kind: kind, dir: t.TempDir()}
			rt, closeRuntime, err := kinds[kind](b.dir)
			if err != nil {
				t.Fatal(err)
			}
			b.rt = rt
			t.Cleanup(func() {
				if err := closeRuntime(); err != nil {
					t.Errorf("something is left: %v", err)
				}
			})
			test.run(t, b)
		})
	}
}

func testServes(t *testing.T, b *bench) {
	p := b.ready(b.spec("alice", TenantCommand()...))
	if got := b.get(p, "/"); got != "api:alice" {
		t.Errorf("answered %q", got)
	}
	want := strconv.Itoa(numberInside(p.Ref().PID))
	if b.ownKernel() {
		want = "1"
	}
	if got := b.get(p, "/pid"); got != want {
		t.Errorf("pid %s, recorded %d", got, p.Ref().PID)
	}
}

func testEnvironment(t *testing.T, b *bench) {
	s := b.spec("alice", TenantCommand()...)
	s.Service.Limits.OpenFiles = 100 // which is set in a way that could add variables
	s.Service.Env = map[string]tenement.Template{
		"GREETING": tenement.MustTemplate("hello {id} of {name} at {port} in {data_dir}"),
	}
	p := b.ready(s)
	var env []string
	if err := json.Unmarshal([]byte(b.get(p, "/env")), &env); err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(p.Ref().Port)
	want := []string{
		"DATA_DIR=" + s.DataDir,
		"GREETING=hello alice of api at " + port + " in " + s.Service.DataDir,
		"PORT=" + port, "PYTHONUNBUFFERED=1", "TENEMENT_INSTANCE=alice", "TENEMENT_SERVICE=api",
	}
	for _, name := range []string{"PATH", "HOME", "LANG", "TZ"} {
		value, ok := os.LookupEnv(name)
		if name == "HOME" && s.UID != 0 {
			value, ok = s.DataDir, true
		}
		if ok {
			want = append(want, name+"="+value)
		}
	}
	slices.Sort(want)
	slices.Sort(env)
	if !slices.Equal(env, want) {
		t.Errorf("environment\n%s\nwant\n%s", strings.Join(env, "\n"), strings.Join(want, "\n"))
	}
}

func testDescriptors(t *testing.T, b *bench) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("needs /proc: Linux only")
	}
	s := b.spec("alice", "sh", "-c", "ls -l /proc/self/fd")
	var out Buffer
	s.Stdout = &out
	p := b.start(s)
	Within(t, "exit", p.Exited())
	Eventually(t, "list of descriptors", func() bool { return strings.Contains(out.String(), " 2 -> ") })
	hosts := 0
	for line := range strings.Lines(out.String()) {
		before, target, ok := strings.Cut(strings.TrimSpace(line), " -> ")
		if b.ownKernel() && strings.HasPrefix(target, "host:") && hosts < 3 {
			hosts++ // standard input, output and error, which have no name there
			continue
		}
		if ok && !strings.HasSuffix(before, " 0") && // /dev/null
			target != p.Ref().Stdout && target != p.Ref().Stderr && !strings.HasPrefix(target, "/proc/") {
			t.Errorf("inherited: %s", line)
		}
	}
}

// testSession: whoever is in the daemon's session can open its terminal, and type there.
func testSession(t *testing.T, b *bench) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("needs /proc: Linux only")
	}
	s := b.spec("alice", "sh", "-c", "exec cut -d' ' -f1,5,6 /proc/self/stat")
	var out Buffer
	s.Stdout = &out
	p := b.start(s)
	Within(t, "exit", p.Exited())
	Eventually(t, "pid, process group and session", func() bool { return strings.HasSuffix(out.String(), "\n") })
	ids := strings.Fields(out.String()) // of which a sandbox has its own
	if len(ids) != 3 || ids[1] != ids[0] || ids[2] != ids[0] {
		t.Errorf("pid, process group and session: %v", ids)
	}
}

func testOutput(t *testing.T, b *bench) {
	s := b.spec("alice", TenantCommand()...)
	var out, err Buffer
	s.Stdout, s.Stderr = &out, &err
	p := b.ready(s)
	b.get(p, "/print?out=to-stdout&err=to-stderr")
	Eventually(t, "stdout", func() bool { return strings.Contains(out.String(), "to-stdout\n") })
	Eventually(t, "stderr", func() bool { return strings.Contains(err.String(), "to-stderr\n") })
}

func testExitStatus(t *testing.T, b *bench) {
	p := b.start(b.spec("alice", TenantCommand("-exit=7")...))
	Within(t, "exit", p.Exited())
	if got, want := p.Exit(), (tenement.Exit{Status: 7, Known: true}); got != want {
		t.Errorf("exit %+v, want %+v", got, want)
	}
}

func testExitSignal(t *testing.T, b *bench) {
	p := b.start(b.spec("alice", TenantCommand("-ignore-term")...))
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	Within(t, "exit", p.Exited())
	if got, want := p.Exit(), (tenement.Exit{Status: -1, Signal: "killed", Known: true}); got != want {
		t.Errorf("exit %+v, want %+v", got, want)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("signal to what has ended: %v", err)
	}
}

func testTerminate(t *testing.T, b *bench) {
	s := b.spec("alice", TenantCommand()...)
	p := b.ready(s)
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	Within(t, "exit", p.Exited())
	if _, err := os.Stat(filepath.Join(s.DataDir, "terminated")); err != nil {
		t.Errorf("the program did not see SIGTERM: %v", err)
	}
}

// child has the program start one and gives its pid, as the test knows it.
func (b *bench) child(p runtime.Process, query string) int {
	b.t.Helper()
	pid, err := strconv.Atoi(b.get(p, "/child?"+query))
	if err != nil {
		b.t.Fatal(err)
	}
	return numberOutside(p.Ref(), pid)
}

func testKillTree(t *testing.T, b *bench) {
	p := b.ready(b.spec("alice", TenantCommand("-ignore-term")...))
	child := b.child(p, "")
	daemon := b.child(p, "setsid=1")
	if p.Ref().Cgroup == "" {
		t.Log("no cgroup: what leaves its process group is not found")
		left := daemon
		t.Cleanup(func() { _ = syscall.Kill(left, syscall.SIGKILL) })
		daemon = child
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	Within(t, "exit", p.Exited())
	Eventually(t, "end of the tree", func() bool { return !b.lives(p.Ref(), child) && !b.lives(p.Ref(), daemon) })
}

func testReleaseTree(t *testing.T, b *bench) {
	p := b.ready(b.spec("alice", TenantCommand()...))
	child := b.child(p, "")
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	Within(t, "exit", p.Exited())
	if b.ownKernel() {
		return // nothing can be left: b.end looks
	}
	if !Alive(child) {
		t.Fatal("the child is gone before Release: the test shows nothing")
	}
	hurry, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Release(hurry); err != nil {
		t.Fatal(err)
	}
	if Alive(child) {
		t.Error("the child outlives Release")
	}
}

func testMissingProgram(t *testing.T, b *bench) {
	_, err := b.rt.Start(t.Context(), b.spec("alice", "no-such-program-anywhere"))
	if tenement.CodeOf(err) != tenement.CodeUnavailable || !strings.Contains(tenement.HintOf(err), "no-such-program-anywhere") {
		t.Errorf("error %v, hint %q", err, tenement.HintOf(err))
	}
}

func testNotExecutable(t *testing.T, b *bench) {
	file := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, []byte("not a program"), 0o755); err != nil { //nolint:gosec // executable on purpose, by all
		t.Fatal(err)
	}
	if _, err := b.rt.Start(t.Context(), b.spec("alice", file)); tenement.CodeOf(err) != tenement.CodeUnavailable {
		t.Errorf("error %v", err)
	}
}

func testPorts(t *testing.T, b *bench) {
	alice := b.ready(b.spec("alice", TenantCommand()...))
	bob := b.ready(b.spec("bob", TenantCommand()...))
	if b.get(alice, "/") != "api:alice" || b.get(bob, "/") != "api:bob" {
		t.Error("an instance answers for another")
	}
}

func testAdopt(t *testing.T, b *bench) {
	first := b.ready(b.spec("alice", TenantCommand("-ignore-term")...))
	p, err := b.rt.Adopt(t.Context(), runtime.Spec{Stdout: Discard{}, Stderr: Discard{}}, first.Ref())
	if err != nil {
		t.Skipf("cannot adopt here: %v", err)
	}
	if got := b.get(p, "/"); got != "api:alice" {
		t.Errorf("the adopted process answers %q", got)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	Within(t, "exit", p.Exited())
	Within(t, "exit", first.Exited())
	hurry, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Release(hurry); err != nil {
		t.Errorf("release: %v", err)
	}
}

func testAdoptStranger(t *testing.T, b *bench) {
	p := b.ready(b.spec("alice", TenantCommand()...))
	for name, change := range map[string]func(*tenement.Ref){
		"another start time": func(r *tenement.Ref) { r.StartTime++ },
		"another boot":       func(r *tenement.Ref) { r.BootID = "another" },
		"no boot":            func(r *tenement.Ref) { r.BootID = "" },
	} {
		ref := p.Ref()
		change(&ref)
		if _, err := b.rt.Adopt(t.Context(), runtime.Spec{Stdout: Discard{}, Stderr: Discard{}}, ref); tenement.CodeOf(err) != tenement.CodeNotFound {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if got := b.get(p, "/"); got != "api:alice" {
		t.Errorf("afterwards it answers %q", got)
	}
}

// Number reads a number from a tenant's answer.
func Number(t testing.TB, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

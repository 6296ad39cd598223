package runtimetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tenement"
	"tenement/internal/cgroup"
	"tenement/internal/probe"
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

// bench runs one test's tenants.
type bench struct {
	t    *testing.T
	rt   runtime.Runtime
	kind string // of rt
	dir  string // of rt
}

// Buffer is a bytes.Buffer that may be written and read concurrently.
type Buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// Take implements runtime.Sink: it takes everything.
func (b *Buffer) Take(offer []byte, _ bool, remove func(int)) {
	n, _ := b.Write(offer) // never fails
	remove(n)
}

// Discard is a runtime.Sink that drops everything.
type Discard struct{}

// Take implements runtime.Sink.
func (Discard) Take(offer []byte, _ bool, remove func(int)) { remove(len(offer)) }

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *bench) spec(name string, command ...string) runtime.Spec {
	dir := filepath.Join(b.t.TempDir(), name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.t.Fatal(err)
	}
	service := &tenement.Service{Name: "api", DataDir: filepath.Dir(dir), Egress: tenement.EgressAllow}
	for _, word := range command {
		service.Command = append(service.Command, tenement.MustTemplate(word))
	}
	uid, err := OwnUID(b.kind, dir)
	if err != nil {
		b.t.Fatal(err)
	}
	return runtime.Spec{
		Instance: tenement.InstanceID{Service: "api", Name: name}, Service: service, DataDir: dir, UID: uid,
		Stdout: Discard{}, Stderr: Discard{},
	}
}

// hostKind begins the name of every kind of runtime whose tenants run as the daemon's
// own user.
const hostKind = "host"

// lastUID is the user id that an instance was given last; those of other test processes
// are far away.
var lastUID atomic.Int64

// OwnUID gives an instance of a kind a user id, and its data directory to it, unless it runs as the
// daemon's own user.
func OwnUID(kind, dataDir string) (int, error) {
	if strings.HasPrefix(kind, hostKind) {
		return 0, nil
	}
	uid := 1_900_000_000 + os.Getpid()*1000%100_000_000 + int(lastUID.Add(1))
	return uid, os.Chown(dataDir, uid, uid)
}

// start runs s until the test ends.
func (b *bench) start(s runtime.Spec) runtime.Process {
	b.t.Helper()
	p, err := b.rt.Start(b.t.Context(), s)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { b.end(p) })
	return p
}

func (b *bench) end(p runtime.Process) {
	b.t.Helper()
	if err := p.Kill(); err != nil {
		b.t.Logf("kill: %v", err) // harmless on what is gone
	}
	Within(b.t, "exit", p.Exited())
	hurry, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Release(hurry); err != nil {
		b.t.Errorf("release: %v", err)
	}
	for _, path := range []string{p.Ref().Stdout, p.Ref().Stderr, p.Ref().Cgroup} {
		if _, err := os.Stat(path); path != "" && err == nil {
			b.t.Errorf("%s is left", path)
		}
	}
}

func (b *bench) ready(s runtime.Spec) runtime.Process {
	b.t.Helper()
	p := b.start(s)
	b.awaitHealth(p)
	return p
}

func (b *bench) awaitHealth(p runtime.Process) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	if err := probe.Ready(ctx, p.Dial, "/health"); err != nil {
		b.t.Fatal(err)
	}
}

// get asks p for a path and returns the body.
func (b *bench) get(p runtime.Process, path string) string {
	b.t.Helper()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return p.Dial(ctx) },
	}
	request, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, "http://tenant"+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		b.t.Fatalf("GET %s: %v", path, err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		b.t.Fatalf("GET %s: %s %v", path, answer.Status, err)
	}
	return string(body)
}

// patience bounds every wait for what comes at once on a machine that does nothing else.
const patience = 2 * time.Minute

// Within fails the test unless c is closed, or receives, in good time.
func Within[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s within %s", what, patience)
		panic("unreachable")
	}
}

// Eventually polls until ok, and fails the test if that takes too long.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// sandboxKind begins the name of every kind of runtime whose tenants have a kernel of
// their own, with its own process ids. They end with their main process.
const sandboxKind = "sandbox"

func (b *bench) ownKernel() bool { return strings.HasPrefix(b.kind, sandboxKind) }

// lives reports whether the process that the tenant of ref knows as pid is alive. Of one
// with a kernel of its own it says whether anything is.
func (b *bench) lives(ref tenement.Ref, pid int) bool {
	b.t.Helper()
	if !b.ownKernel() {
		return Alive(pid)
	}
	populated, err := cgroup.At(ref.Cgroup).Populated()
	if err != nil {
		b.t.Fatal(err)
	}
	return populated
}

// Alive reports whether pid is a process that is not a zombie.
func Alive(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	if err != nil {
		return syscall.Kill(pid, 0) == nil
	}
	after := text[bytes.LastIndexByte(text, ')')+1:]
	fields := bytes.Fields(after)
	return len(fields) > 0 && fields[0][0] != 'Z' && fields[0][0] != 'X'
}

func testServes(t *testing.T, b *bench) {
	p := b.ready(b.spec("alice", TenantCommand()...))
	if got := b.get(p, "/"); got != "api:alice" {
		t.Errorf("answered %q", got)
	}
	want := strconv.Itoa(p.Ref().PID)
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

func (b *bench) child(p runtime.Process, query string) int {
	b.t.Helper()
	pid, err := strconv.Atoi(b.get(p, "/child?"+query))
	if err != nil {
		b.t.Fatal(err)
	}
	return pid
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

package runtimetest

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/probe"
	"tenement/internal/runtime"
)

// adoption is the part of the suite that needs a daemon to have died.
var adoption = []struct {
	name string
	run  func(*testing.T, *bench)
}{
	{"adopt after the daemon was killed", testOutlivesDaemon},
	{"adopt what was not stored", testNotStored},
	{"adopt and be told the exit status", testAdoptedExit},
	{"adopt ends what cannot be trusted", testAdoptUntrusted},
	{"adopt what was detached", testDetach},
	{"adopt what is frozen", testAdoptFrozen},
	{"adopt and hear notices", testAdoptedNotices},
}

// Lines is a runtime.Sink that takes whole lines. It may be read concurrently.
type Lines struct {
	mu   sync.Mutex
	text strings.Builder
}

// Take implements runtime.Sink.
func (l *Lines) Take(offer []byte, _, last bool, remove func(int)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := strings.LastIndexByte(string(offer), '\n') + 1
	if last || end == 0 && len(offer) == runtime.MaxOffer {
		end = len(offer)
	}
	l.text.Write(offer[:end])
	remove(end)
}

func (l *Lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// former is the process of ref while no daemon has it: its port still answers.
type former struct {
	runtime.Process
	ref tenement.Ref
}

func (f former) Ref() tenement.Ref { return f.ref }

func (f former) Dial(ctx context.Context) (conn net.Conn, err error) {
	var there sync.WaitGroup
	there.Go(func() {
		if f.ref.Isolation != tenement.IsolationProcess {
			goruntime.LockOSThread() // never unlocked: the thread stays in the namespace until it ends
			if err = enterNetwork(f.ref.PID); err != nil {
				return
			}
		}
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(f.ref.Port)))
	})
	there.Wait()
	return conn, err
}

func enterNetwork(pid int) error {
	namespace, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return err
	}
	defer func() { _ = namespace.Close() }() // only read
	return unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
}

// awaitReady waits until the tenant of ref answers.
func (b *bench) awaitReady(ref tenement.Ref) former {
	b.t.Helper()
	f := former{ref: ref}
	if err := probe.Ready(b.t.Context(), probe.Target{Dial: f.Dial, Path: "/health"}); err != nil {
		b.t.Fatal(err)
	}
	return f
}

func (b *bench) adopt(ref tenement.Ref, stdout, stderr runtime.Sink) runtime.Process {
	b.t.Helper()
	s := runtime.Spec{Instance: tenement.InstanceID{Service: "api", Name: "alice"}, Stdout: stdout, Stderr: stderr}
	p, err := b.rt.Adopt(b.t.Context(), s, ref)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

func testOutlivesDaemon(t *testing.T, b *bench) {
	ref, kill := b.outlived(formerDaemon{Command: TenantCommand("-ignore-term")})
	tenant := b.awaitReady(ref)
	b.get(tenant, "/print?out=stored&err=stored")
	b.get(tenant, "/print?out=a+line+in&err=&part=1")
	Eventually(t, "all lines taken", func() bool {
		return unread(t, ref.Stdout) == len("a line in") && unread(t, ref.Stderr) == 0
	})
	kill()

	lines := 50_000 // 2 MB: no FIFO holds them
	if b.ownKernel() {
		lines = 4_000 // nor these, and each takes longer
	}
	b.get(tenant, "/print?out=+parts&err=alone")
	b.get(tenant, "/flood?lines="+strconv.Itoa(lines))
	Eventually(t, "printed something without a reader", func() bool { return Number(t, b.get(tenant, "/flooded")) > 100 })
	if !Alive(ref.PID) {
		t.Fatal("the tenant died with its daemon")
	}
	if printed := Number(t, b.get(tenant, "/flooded")); printed == lines {
		t.Fatal("the flood went through without a reader: the test shows nothing")
	}

	var stdout, stderr Lines
	p := b.adopt(ref, &stdout, &stderr)
	if got := p.Ref(); got != ref {
		t.Errorf("adopted as %+v, was %+v", got, ref)
	}
	if got := b.get(p, "/"); got != "api:alice" {
		t.Errorf("the adopted process answers %q", got)
	}
	child := b.child(p, "")
	Eventually(t, "end of the flood", func() bool { return Number(t, b.get(p, "/flooded")) == lines })
	b.get(p, "/print?out=since&err=&part=1")
	if err := p.Signal(syscall.SIGTERM); err != nil { // ignored: Kill must end it
		t.Fatal(err)
	}
	b.end(p)
	if Alive(ref.PID) || b.lives(ref, child) {
		t.Error("something of the tree is alive")
	}
	_, rest, _ := strings.Cut(stdout.String(), "a line in parts\n")
	var want strings.Builder
	for n := range lines {
		want.WriteString(FloodLine(n))
	}
	if rest != want.String()+"since" {
		t.Errorf("%d bytes of output, want %d; it begins %.200q", len(stdout.String()), want.Len(), stdout.String())
	}
	if strings.Contains(stdout.String(), "stored") || stderr.String() != "alone\n" {
		t.Errorf("stdout begins %.100q, stderr is %.100q", stdout.String(), stderr.String())
	}
}

// unread is how many bytes are in a FIFO.
func unread(t *testing.T, path string) int {
	t.Helper()
	fifo, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fifo.Close() }()
	n, err := unix.IoctlGetInt(int(fifo.Fd()), unix.TIOCINQ)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func testNotStored(t *testing.T, b *bench) {
	ref, kill := b.outlived(formerDaemon{Command: TenantCommand(), Stuck: true})
	tenant := b.awaitReady(ref)
	b.get(tenant, "/print?out=one&err=one")
	b.get(tenant, "/print?out=two&err=two")
	kill()
	var stdout, stderr Lines
	b.end(b.adopt(ref, &stdout, &stderr))
	if got, want := stdout.String(), "listening on "+strconv.Itoa(ref.Port)+"\none\ntwo\n"; got != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
	if got := stderr.String(); got != "one\ntwo\n" {
		t.Errorf("stderr %q", got)
	}
}

func testAdoptedExit(t *testing.T, b *bench) {
	for _, test := range []struct {
		end  func(former) error
		want tenement.Exit
	}{
		{exitWith3, tenement.Exit{Status: 3, Known: true}},
		{killHard, tenement.Exit{Status: -1, Signal: "killed", Known: true}},
	} {
		ref, kill := b.outlived(formerDaemon{Command: TenantCommand()})
		tenant := b.awaitReady(ref)
		kill()
		p := b.adopt(ref, Discard{}, Discard{})
		if err := test.end(tenant); err != nil {
			t.Fatal(err)
		}
		Within(t, "exit", p.Exited())
		if got := p.Exit(); !got.Known && kernelBefore(t, 6, 15) {
			t.Log("the kernel does not tell: Linux 6.15 does")
		} else if got != test.want {
			t.Errorf("exit %+v, want %+v", got, test.want)
		}
		b.end(p)
	}
}

func exitWith3(f former) error {
	request, err := http.NewRequest(http.MethodGet, "http://tenant/exit?code=3", nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return f.Dial(ctx) }}
	if answer, err := transport.RoundTrip(request); err == nil {
		_ = answer.Body.Close() // it ends without an answer
	}
	return nil
}

func killHard(f former) error { return syscall.Kill(f.ref.PID, syscall.SIGKILL) }

func kernelBefore(t *testing.T, major, minor int) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	parts := strings.SplitN(unix.ByteSliceToString(name.Release[:]), ".", 3)
	gotMajor, gotMinor := Number(t, parts[0]), Number(t, parts[1])
	return gotMajor < major || gotMajor == major && gotMinor < minor
}

func testAdoptUntrusted(t *testing.T, b *bench) {
	for name, change := range map[string]func(*tenement.Ref) error{
		"a FIFO is gone":   func(r *tenement.Ref) error { return os.Remove(r.Stderr) },
		"none is recorded": func(r *tenement.Ref) error { r.Stdout = ""; return nil },
		"not a FIFO": func(r *tenement.Ref) error {
			r.Stdout = filepath.Join(t.TempDir(), "file")
			return os.WriteFile(r.Stdout, nil, 0o600)
		},
		"another cgroup": func(r *tenement.Ref) error {
			if r.Cgroup == "" {
				return os.Remove(r.Stdout) // without cgroups: as above
			}
			r.Cgroup += "-of-another"
			return nil
		},
	} {
		ref, kill := b.outlived(formerDaemon{Command: TenantCommand("-ignore-term")})
		child := b.child(b.awaitReady(ref), "")
		kill()
		was := ref
		if err := change(&ref); err != nil {
			t.Fatal(err)
		}
		_, err := b.rt.Adopt(t.Context(), runtime.Spec{Stdout: Discard{}, Stderr: Discard{}}, ref)
		if tenement.CodeOf(err) != tenement.CodeUnavailable {
			t.Errorf("%s: error %v", name, err)
		}
		if Alive(ref.PID) || !b.ownKernel() && Alive(child) {
			t.Errorf("%s: it is still alive", name)
		}
		if b.ownKernel() { // whose helpers end when they find that it has
			Eventually(t, name+": the end of all", func() bool { return !b.lives(was, child) })
		}
		for _, path := range []string{was.Stdout, was.Stderr, was.Cgroup} {
			if path != "" {
				_ = os.Remove(path) // the daemon sweeps
			}
		}
	}
}

func testDetach(t *testing.T, b *bench) {
	s := b.spec("alice", TenantCommand()...)
	var before, after Lines
	s.Stdout = &before
	first := b.ready(s)
	b.get(first, "/print?out=first&err=")
	Eventually(t, "first line", func() bool { return strings.Contains(before.String(), "first\n") })
	b.get(first, "/print?out=a+line+in&err=&part=1")
	first.Detach()
	b.get(first, "/print?out=+parts&err=")
	p := b.adopt(first.Ref(), &after, Discard{})
	b.get(p, "/print?out=second&err=")
	Eventually(t, "second line", func() bool { return strings.Contains(after.String(), "second\n") })
	if got := after.String(); got != "a line in parts\nsecond\n" {
		t.Errorf("the second daemon got %q, the first %q", got, before.String())
	}
	b.end(p)
	Within(t, "exit", first.Exited())
	b.wantsKilled(first, false)
}

// testAdoptFrozen: it stays so until somebody wants it, and then goes on as often as need be.
func testAdoptFrozen(t *testing.T, b *bench) {
	first := b.ready(b.spec("alice", TenantCommand()...))
	b.freeze(first)
	first.Detach()
	p := b.adopt(first.Ref(), Discard{}, Discard{})
	for range 2 {
		if !p.Frozen() {
			t.Error("it is not known to be frozen")
		}
		if err := b.ask(p, "/", 50*time.Millisecond); err == nil {
			t.Error("what is frozen answers")
		}
		if err := p.Thaw(); err != nil || p.Frozen() {
			t.Fatalf("frozen: %t, %v", p.Frozen(), err)
		}
		if got := b.get(p, "/"); got != "api:alice" {
			t.Errorf("thawed it answers %q", got)
		}
		b.freeze(p)
	}
	b.end(p)
	Within(t, "exit", first.Exited())
}

// testAdoptedNotices: what is said after a restart of the daemon is heard.
func testAdoptedNotices(t *testing.T, b *bench) {
	if b.ownKernel() {
		return // nothing is said
	}
	ref, kill := b.outlived(formerDaemon{Command: TenantCommand(), Ready: tenement.ReadyNotify})
	tenant := b.awaitReady(ref)
	kill()
	b.refused(tenant, b.notifySocket(tenant))
	p, err := b.rt.Adopt(t.Context(), runtime.Spec{
		Instance: tenement.InstanceID{Service: "api", Name: "alice"}, Stdout: Discard{}, Stderr: Discard{},
		Service: &tenement.Service{Ready: tenement.ReadyNotify},
	}, ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.end(p) })
	b.says(p, "STOPPING=1")
	if got := Within(t, "notice", p.Notices()); got != (runtime.Notice{Stopping: true}) {
		t.Errorf("heard %+v", got)
	}
}

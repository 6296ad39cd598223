package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
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
	"tenement/internal/rootless"
	"tenement/internal/runtime"
)

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
func (b *Buffer) Take(offer []byte, _, _ bool, remove func(int)) {
	n, _ := b.Write(offer) // never fails
	remove(n)
}

// Discard is a runtime.Sink that drops everything.
type Discard struct{}

// Take implements runtime.Sink.
func (Discard) Take(offer []byte, _, _ bool, remove func(int)) { remove(len(offer)) }

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
	service := &tenement.Service{Name: "api", DataDir: filepath.Dir(dir), Egress: egress()}
	service.Command = templates(command...)
	service.Timeouts.Startup = patience
	uid, err := OwnUID(b.kind, dir)
	if err != nil {
		b.t.Fatal(err)
	}
	return runtime.Spec{
		Instance: tenement.InstanceID{Service: "api", Name: name}, Service: service, DataDir: dir, UID: uid,
		Stdout: Discard{}, Stderr: Discard{},
	}
}

func templates(words ...string) (list []tenement.Template) {
	for _, word := range words {
		list = append(list, tenement.MustTemplate(word))
	}
	return list
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
	n := int(lastUID.Add(1))
	uid := 1_900_000_000 + os.Getpid()*1000%100_000_000 + n
	if rootless.Inside() {
		uid = subordID + os.Getpid()*1000%(UserIDs-1000) + n
	}
	return uid, os.Chown(dataDir, uid, uid)
}

// egress is what instances have that could have any.
func egress() tenement.Egress {
	if rootless.Inside() {
		return tenement.EgressDeny
	}
	return tenement.EgressAllow
}

// The ids that an ordinary user of the tests may give to others.
const (
	subordID = 200_000
	UserIDs  = 65_536
)

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
	if err := probe.Ready(ctx, probe.Target{Dial: p.Dial, Path: "/health"}); err != nil {
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

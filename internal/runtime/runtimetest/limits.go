package runtimetest

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenement"
	"tenement/internal/runtime"
)

// startWith starts the tenant program with limits, or skips where they cannot be had,
// which is a failure if TENEMENT_REQUIRE lists controllers.
func (b *bench) startWith(l tenement.Limits) runtime.Process {
	b.t.Helper()
	s := b.spec("alice", TenantCommand()...)
	s.Service.Limits = l
	p, err := b.rt.Start(b.t.Context(), s)
	if tenement.CodeOf(err) == tenement.CodeUnavailable {
		if tenement.HintOf(err) == "" {
			b.t.Errorf("no hint: %v", err)
		}
		if b.kind != "host" && slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), "controllers") {
			b.t.Fatal(err)
		}
		b.t.Skipf("%v (run test/vm, whose machine has every controller)", err)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { b.end(p) })
	b.awaitHealth(p)
	return p
}

func onLinuxOnly(t *testing.T) {
	t.Helper()
	if goruntime.GOOS != "linux" {
		t.Skip("limits are kept on Linux only")
	}
}

// ask is get for what may not be answered: within limit it is, or it is not.
func (b *bench) ask(p runtime.Process, path string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(b.t.Context(), limit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://tenant"+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return p.Dial(ctx) },
	}
	answer, err := transport.RoundTrip(request)
	if err == nil {
		err = answer.Body.Close()
	}
	return err
}

func (b *bench) freeze(p runtime.Process) {
	b.t.Helper()
	if err := p.Freeze(b.t.Context()); err != nil || !p.Frozen() {
		b.t.Fatalf("frozen: %t, %v", p.Frozen(), err)
	}
}

func testFreeze(t *testing.T, b *bench) {
	p := b.ready(b.spec("alice", TenantCommand()...))
	for range 2 { // and once more
		b.freeze(p)
		if err := b.ask(p, "/", 50*time.Millisecond); err == nil {
			t.Error("what is frozen answers")
		}
		for range 2 { // the second one without need
			if err := p.Thaw(); err != nil || p.Frozen() {
				t.Fatalf("frozen: %t, %v", p.Frozen(), err)
			}
		}
		if got := b.get(p, "/"); got != "api:alice" {
			t.Errorf("thawed it answers %q", got)
		}
	}
}

func testKillFrozen(t *testing.T, b *bench) {
	p := b.ready(b.spec("alice", TenantCommand("-ignore-term")...))
	child := b.child(p, "")
	b.freeze(p)
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	Within(t, "exit", p.Exited())
	Eventually(t, "end of the child", func() bool { return !b.lives(p.Ref(), child) })
	if err := p.Thaw(); err != nil {
		t.Errorf("thaw what has ended: %v", err)
	}
}

// testTerminateFrozen: what it is told meanwhile it hears when it goes on.
func testTerminateFrozen(t *testing.T, b *bench) {
	s := b.spec("alice", TenantCommand()...)
	p := b.ready(s)
	b.freeze(p)
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Thaw(); err != nil {
		t.Fatal(err)
	}
	Within(t, "exit", p.Exited())
	if _, err := os.Stat(filepath.Join(s.DataDir, "terminated")); err != nil || p.Exit().Failed() {
		t.Errorf("exit %s, %v", p.Exit(), err)
	}
}

// testKillForking: by the time a pid was read it is no more.
func testKillForking(t *testing.T, b *bench) {
	s := b.spec("alice", TenantCommand()...)
	p := b.ready(s)
	hops := func() int64 {
		info, err := os.Stat(filepath.Join(s.DataDir, "hops"))
		if err != nil {
			return 0
		}
		return info.Size()
	}
	b.get(p, "/hop")
	Eventually(t, "a process that gives place to its child", func() bool { return hops() > 10 })
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	Within(t, "exit", p.Exited())
	b.ready(b.spec("bob", TenantCommand()...)) // takes long enough for the last to be gone
	after := hops()
	if b.ready(b.spec("carol", TenantCommand()...)); hops() != after {
		t.Error("it goes on after the kill")
	}
}

func testUsage(t *testing.T, b *bench) {
	onLinuxOnly(t)
	p := b.ready(b.spec("alice", TenantCommand()...))
	before, err := p.Usage()
	if err != nil || before.Memory == 0 {
		t.Fatalf("usage %+v, %v", before, err)
	}
	const more = 32
	b.get(p, "/memory?mb="+strconv.Itoa(more))
	after, err := p.Usage()
	if err != nil || after.Memory < before.Memory+more*mebibyte || after.CPU < before.CPU {
		t.Errorf("usage %+v after %+v, %v", after, before, err)
	}
}

func testOpenFiles(t *testing.T, b *bench) {
	onLinuxOnly(t)
	var before, after syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	const limit = 64
	s := b.spec("alice", append([]string{"sh", "-c", `ulimit -Sn; ulimit -Hn; grep SigBlk /proc/self/status; exec "$0" "$@"`}, TenantCommand()...)...)
	s.Service.Limits.OpenFiles = limit
	var out Buffer
	s.Stdout = &out
	p := b.ready(s)
	want := "64\n64\nSigBlk:\t0000000000000000\n"
	if b.ownKernel() { // which has no such line
		want = "64\n64\n"
	}
	if got := out.String(); !strings.HasPrefix(got, want) {
		t.Errorf("it begins with %q, want %q", got, want)
	}
	answer := b.get(p, "/files")
	count, why, _ := strings.Cut(answer, " ")
	if n := Number(t, count); n >= limit || n < limit/2 || !strings.Contains(why, syscall.EMFILE.Error()) {
		t.Errorf("with %d descriptors it opened %s", limit, answer)
	}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &after); err != nil || after != before {
		t.Errorf("our own limit was %v and is %v, %v", before, after, err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	Within(t, "exit", p.Exited())
	if got, want := p.Exit(), (tenement.Exit{Known: true}); got != want {
		t.Errorf("exit %+v, want %+v", got, want)
	}
}

// testImpossibleLimit: more than fs.nr_open is refused to anybody.
func testImpossibleLimit(t *testing.T, b *bench) {
	s := b.spec("alice", "sh", "-c", "echo >began")
	s.Service.Limits.OpenFiles = 2_000_000_000
	p, err := b.rt.Start(t.Context(), s)
	if err == nil {
		b.end(p)
	}
	if tenement.CodeOf(err) != tenement.CodeUnavailable || tenement.HintOf(err) == "" {
		t.Errorf("error %v, hint %q", err, tenement.HintOf(err))
	}
	if _, err := os.Stat(filepath.Join(s.DataDir, "began")); err == nil {
		t.Error("the program ran without its limit")
	}
}

// testLimitedNoProgram: it is the shell that says so, and the tenant's log has it.
func testLimitedNoProgram(t *testing.T, b *bench) {
	onLinuxOnly(t)
	file := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, []byte("\x7fELF, nearly"), 0o755); err != nil { //nolint:gosec // executable on purpose
		t.Fatal(err)
	}
	s := b.spec("alice", file)
	s.Service.Limits.OpenFiles = 64
	var said Buffer
	s.Stderr = &said
	p := b.start(s)
	Within(t, "exit", p.Exited())
	if got, want := p.Exit(), (tenement.Exit{Status: 126, Known: true}); got != want {
		t.Errorf("exit %+v, want %+v", got, want)
	}
	Eventually(t, "reason", func() bool { return strings.Contains(said.String(), "format error") })
}

func testOutOfMemory(t *testing.T, b *bench) {
	p := b.startWith(tenement.Limits{Memory: 64 * mebibyte})
	go func() { _ = b.ask(p, "/memory?mb=256", 30*time.Second) }()
	Within(t, "end for want of memory", p.Exited())
	b.wantsKilled(p, true)
}

// testChildOutOfMemory: nothing of the tree stays.
func testChildOutOfMemory(t *testing.T, b *bench) {
	p := b.startWith(tenement.Limits{Memory: 64 * mebibyte})
	go func() { _ = b.ask(p, "/memory?child=1&mb=256", 30*time.Second) }()
	Within(t, "end for want of memory", p.Exited())
	b.wantsKilled(p, true)
}

// wantsKilled wants p to have been ended by SIGKILL from outside. A sandbox cannot tell
// that, and is no child of ours: before Linux 6.15 the kernel may not tell either.
func (b *bench) wantsKilled(p runtime.Process, oom bool) {
	b.t.Helper()
	want := tenement.Exit{Status: -1, Signal: "killed", Known: true, OOM: oom}
	if b.ownKernel() && !p.Exit().Known && kernelBefore(b.t, 6, 15) {
		want.Signal, want.Known = "", false
	}
	if got := p.Exit(); got != want {
		b.t.Errorf("exit %+v, want %+v", got, want)
	}
}

func testProcesses(t *testing.T, b *bench) {
	const limit = 48 // its own threads are a dozen, and those of a sandbox two
	p := b.startWith(tenement.Limits{PIDs: limit})
	refusal := syscall.EAGAIN
	if b.ownKernel() { // whose word it is for a process that it cannot have
		refusal = syscall.ENOMEM
	}
	answer := b.get(p, "/fork?n=200")
	count, why, _ := strings.Cut(answer, " ")
	if n := Number(t, count); n >= limit || n == 0 || !strings.Contains(why, refusal.Error()) {
		t.Errorf("with %d processes it started %s", limit, answer)
	}
}

func testProcessorShare(t *testing.T, b *bench) {
	const share = 0.5 // of which a sandbox on an emulated processor boots in good time
	p := b.startWith(tenement.Limits{CPU: share})
	b.get(p, "/spin?threads=2")
	began := time.Now()
	before, err := p.Usage()
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(2 * time.Second) // what is measured is what it is let have meanwhile
	after, err := p.Usage()
	got := (after.CPU - before.CPU).Seconds() / time.Since(began).Seconds()
	t.Logf("of a core it had %.3f", got)
	if err != nil || got > share*1.25 { // a period at either end may be had whole
		t.Errorf("it had %.3f of a core, not %.2f, %v", got, share, err)
	}
}

func testWeights(t *testing.T, b *bench) {
	p := b.startWith(tenement.Limits{CPUShares: 250, IOWeight: 350})
	for name, want := range map[string]string{"cpu.weight": "250", "io.weight": "default 350"} {
		text, err := os.ReadFile(filepath.Join(p.Ref().Cgroup, name))
		if err != nil || strings.TrimSpace(string(text)) != want {
			t.Errorf("%s is %q, %v", name, text, err)
		}
	}
}

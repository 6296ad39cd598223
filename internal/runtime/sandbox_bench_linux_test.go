package runtime_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"testing"
	"time"

	"tenement"
	"tenement/internal/network"
	"tenement/internal/probe"
	"tenement/internal/runtime"
)

// BenchmarkSandboxStart takes turns between a start in a sandbox and a bare `runsc run`
// of a bundle for the same program in a network namespace of the same kind: to the first byte of an
// answer of a static program, in milliseconds, medians.
func BenchmarkSandboxStart(b *testing.B) {
	requireRunsc(b)
	program, home := compileTenant(b), openDir(b)
	rt, closeRuntime, err := openSandbox(home)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := closeRuntime(); err != nil {
			b.Error(err)
		}
	}()
	bare := newBareRunsc(b, program)
	var ours, theirs []time.Duration
	dir := b.TempDir()
	for b.Loop() {
		ours = append(ours, firstByte(b, rt, "sandbox", dir, program))
		theirs = append(theirs, bare.firstByte(b))
	}
	b.ReportMetric(ms(median(ours)), "sandbox-ms")
	b.ReportMetric(ms(median(theirs)), "bare-ms")
	b.ReportMetric(float64(median(ours))/float64(median(theirs)), "sandbox/bare")
}

// openDir is a temporary directory that everybody may pass through.
func openDir(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		b.Fatal(err)
	}
	return dir
}

// bareRunsc runs a bundle as somebody would write it by hand for the same program: a root
// with the same few directories of the host, in a network namespace of the same kind, and
// without a user namespace.
type bareRunsc struct {
	runsc, bundle string
	pool          *network.Pool
	starts        int
}

func newBareRunsc(b *testing.B, program string) *bareRunsc {
	b.Helper()
	runsc, err := runtime.FindRunsc()
	if err != nil {
		b.Fatal(err)
	}
	bundle, dataDir := b.TempDir(), b.TempDir()
	for _, dir := range []string{"usr", "etc", "proc", "tmp", "dev", "sys"} {
		if err := os.Mkdir(filepath.Join(bundle, dir), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	config := fmt.Sprintf(`{
		"ociVersion": "1.0.2",
		"process": {"user": {"uid": 1900000000, "gid": 1900000000}, "args": [%[1]q], "env": ["PORT=8080"], "cwd": "/", "noNewPrivileges": true},
		"root": {"path": %[2]q, "readonly": true},
		"mounts": [
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
			{"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
			{"destination": %[1]q, "type": "bind", "source": %[1]q, "options": ["bind", "ro"]},
			{"destination": %[3]q, "type": "bind", "source": %[3]q, "options": ["bind", "rw"]}
		],
		"linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]}
	}`, program, bundle, dataDir)
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	pool, err := network.Open(network.Options{Name: "bare", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := pool.Close(); err != nil {
			b.Error(err)
		}
	})
	return &bareRunsc{runsc: runsc, bundle: bundle, pool: pool}
}

func (r *bareRunsc) firstByte(b *testing.B) time.Duration {
	b.Helper()
	r.starts++
	state, id := b.TempDir(), fmt.Sprint("bare", r.starts)
	flags := []string{"--root=" + state, "--network=host", "--gofer-network-namespace=host", "--ignore-cgroups", "--overlay2=none"}
	begin := time.Now()
	in, err := r.pool.Take(b.Context(), tenement.EgressAllow)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	failed := make(chan error, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked: the thread ends in the namespace
		if err := in.Enter(); err != nil {
			failed <- err
			return
		}
		cmd := exec.Command(r.runsc, append(flags, "run", "-detach", "-bundle="+r.bundle, id)...)
		failed <- cmd.Run()
	}()
	if err := <-failed; err != nil {
		b.Fatal(err)
	}
	dial := func(ctx context.Context) (net.Conn, error) { return in.Dial(ctx, 8080) }
	if err := probe.Ready(b.Context(), probe.Target{Dial: dial, Path: "/"}); err != nil {
		b.Fatal(err)
	}
	took := time.Since(begin)
	run(b, r.runsc, append(flags, "delete", "-force", id)...)
	return took
}

func run(b *testing.B, program string, args ...string) {
	b.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", program, err, out)
	}
}

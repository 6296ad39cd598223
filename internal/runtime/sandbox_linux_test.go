package runtime_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/cgroup"
	"tenement/internal/network"
	"tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
)

func init() { kinds["sandbox"] = openSandbox }

func openSandbox(dir string) (runtime.Runtime, func() error, error) {
	namespaces, closeNamespaces, err := openNamespace(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, above := range []string{dir, filepath.Dir(dir)} { // t.TempDir() is closed to others
		if err := os.Chmod(above, 0o711); err != nil {
			return nil, nil, err
		}
	}
	boxes := filepath.Join(dir, "boxes")
	rt, err := runtime.NewSandbox(namespaces.(*runtime.Namespace), boxes)
	if err != nil {
		return nil, nil, err
	}
	return rt, func() error { return errors.Join(rt.Sweep(), os.Remove(boxes), closeNamespaces()) }, nil
}

// requireRunsc skips where the pinned runsc is not to be had, or fails there if
// TENEMENT_REQUIRE lists it.
func requireRunsc(tb testing.TB) {
	tb.Helper()
	_, err := runtime.FindRunsc()
	if err == nil && os.Getuid() != 0 {
		err = errors.New("only root can make sandboxes: run the tests as root")
	}
	switch {
	case err == nil:
	case slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), "runsc"):
		tb.Fatal(err)
	default:
		tb.Skipf("%v: run tools/runsc.sh, and put the directory that it prints into PATH", err)
	}
}

func TestSandbox(t *testing.T) {
	t.Parallel()
	requireRunsc(t)
	runtimetest.Suite(t, kinds, "sandbox")
}

// newSandboxJail is a jail of sandboxes, whose bundles are in boxes.
func newSandboxJail(t *testing.T, hidden ...string) (_ *jail, boxes string) {
	t.Helper()
	requireRunsc(t)
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("%x", sha256.Sum256([]byte(dir)))
	tree, err := cgroup.Open("tenement-test-" + name)
	if err != nil {
		t.Fatal(err)
	}
	host, err := runtime.NewHost(filepath.Join(dir, "output"), tree, nil, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	pool, err := network.Open(network.Options{Name: name[:8], Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	namespaces, err := runtime.NewNamespace(host, pool, filepath.Join(dir, "root"), hidden...)
	if err != nil {
		t.Fatal(err)
	}
	boxes = filepath.Join(dir, "boxes")
	rt, err := runtime.NewSandbox(namespaces, boxes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Nothing is left of any test: no process, no bundle, no mount.
		report := func(group string) bool { t.Errorf("%s is left", group); return false }
		if err := tree.Sweep(context.WithoutCancel(t.Context()), report); err != nil {
			t.Error(err)
		}
		if err := errors.Join(rt.Close(), namespaces.Close(), pool.Close(), tree.Close()); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(boxes); err == nil {
			t.Error("a bundle is left")
		}
		if text, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(text), boxes) {
			t.Errorf("something is mounted below %s, %v", boxes, err)
		}
	})
	return &jail{t: t, rt: rt, dataDir: t.TempDir(), namespaces: namespaces}, boxes
}

func TestSandboxShowsOnlyWhatIsNamed(t *testing.T) {
	t.Parallel()
	j, _ := newSandboxJail(t)
	j.spec("bob", "")
	s := j.spec("alice", `cd /; echo *; ls -A $DATA_DIR/..; ls -A $DATA_DIR/../..; cat /proc/2/environ /root/x /etc/shadow; id -un; id -u; hostname; cat /etc/hosts; grep -E '^(Cap|NoNewPrivs)' /proc/self/status; dmesg`)
	got := j.run(s)
	for _, want := range []string{
		"\nalice\napi\n", "cat: /etc/shadow: No such file", "/root/x: No such file",
		"\ntenant\n" + strconv.Itoa(s.UID) + "\nalice\n127.0.0.1 localhost alice\n",
		"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1",
		"Starting gVisor", // it is not this machine's kernel that answers
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	top, _, _ := strings.Cut(got, "\n")
	for name := range strings.FieldsSeq(top) {
		if !slices.Contains(strings.Fields("bin dev etc lib lib32 lib64 libx32 proc run sbin sys tmp usr var nix gnu"), name) {
			t.Errorf("/%s is there", name)
		}
	}
}

func TestSandboxIsOnlyChangedWhereItMay(t *testing.T) {
	t.Parallel()
	j, _ := newSandboxJail(t)
	readable, writable := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Chmod(writable, 0o777), os.Chmod(readable, 0o777)); err != nil {
		t.Fatal(err)
	}
	s := j.spec("alice", fmt.Sprintf(`
for d in $DATA_DIR /tmp /dev/shm %[2]s; do echo x > $d/file && mkdir $d/dir && mv $d/file $d/dir && echo "$d yes"; done
for d in / /usr /etc /run /dev /proc /var %[1]s; do echo x 2>/dev/null > $d/file || mkdir $d/dir 2>/dev/null || echo "$d no"; done
echo null > /dev/null; cat %[1]s/there`, readable, writable))
	s.Service.Readable, s.Service.Writable = []string{readable}, []string{writable}
	if err := os.WriteFile(filepath.Join(readable, "there"), []byte("read\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, d := range []string{s.DataDir, "/tmp", "/dev/shm", writable} {
		want.WriteString(d + " yes\n")
	}
	for _, d := range []string{"/", "/usr", "/etc", "/run", "/dev", "/proc", "/var", readable} {
		want.WriteString(d + " no\n")
	}
	want.WriteString("read\n")
	if got := j.run(s); got != want.String() {
		t.Errorf("%s", cmp.Diff(want.String(), got))
	}
	for _, dir := range []string{writable, s.DataDir} {
		var stat unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "dir", "file"), &stat); err != nil || int(stat.Uid) != s.UID {
			t.Errorf("in %s it belongs to %d, not to %d, %v", dir, stat.Uid, s.UID, err)
		}
	}
}

func TestSandboxHidesTheDataOfOthersWhereverItLies(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "tenement.toml")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	j, _ := newSandboxJail(t, secret)
	j.spec("bob", "")
	s := j.spec("alice", fmt.Sprintf("cat %s; ls -A %s %s/api", secret, j.dataDir, j.dataDir))
	s.Service.Readable = []string{filepath.Dir(secret), filepath.Dir(j.dataDir)}
	got := j.run(s)
	if strings.Contains(got, "secret") && !strings.Contains(got, "cannot open") || strings.Contains(got, "bob") || !strings.Contains(got, "alice") {
		t.Errorf("%s", got)
	}
}

// TestSandboxIsNobody: its own processes have no rights on this machine, not those of
// root and not those of the tenant's user.
func TestSandboxIsNobody(t *testing.T) {
	t.Parallel()
	j, _ := newSandboxJail(t)
	p, err := j.rt.Start(t.Context(), j.spec("alice", "exec sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	pids, err := cgroup.At(p.Ref().Cgroup).Processes()
	if err != nil || len(pids) < 2 {
		t.Errorf("processes %v, %v", pids, err)
	}
	ours, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		proc := fmt.Sprintf("/proc/%d/", pid)
		status, err := os.ReadFile(proc + "status")
		if err != nil {
			t.Fatal(err)
		}
		uid := 1_900_000_000
		for line := range strings.Lines(string(status)) {
			if _, err := fmt.Sscanf(line, "Uid:\t%d", &uid); err == nil {
				break
			}
		}
		theirs, err := os.Readlink(proc + "ns/user")
		if uid < 1<<31 || theirs == ours || err != nil {
			t.Errorf("process %d has uid %d and user namespace %s, %v", pid, uid, theirs, err)
		}
	}
	j.end(p)
}

// end ends p and all of it.
func (j *jail) end(p runtime.Process) {
	j.t.Helper()
	if err := p.Kill(); err != nil {
		j.t.Error(err)
	}
	runtimetest.Within(j.t, "exit", p.Exited())
	if err := p.Release(j.t.Context()); err != nil {
		j.t.Error(err)
	}
}

// TestSandboxSeesANewRelease: files of the service may change while it runs.
func TestSandboxSeesANewRelease(t *testing.T) {
	t.Parallel()
	j, _ := newSandboxJail(t)
	dir := t.TempDir()
	release := filepath.Join(dir, "release")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(release, []byte("1"), 0o644)); err != nil {
		t.Fatal(err)
	}
	s := j.spec("alice", `cat release; while test $(cat release) = 1; do :; done; cat release`)
	s.Service.Workdir = tenement.MustTemplate(dir)
	var out runtimetest.Buffer
	s.Stdout = &out
	p, err := j.rt.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "first release", func() bool { return out.String() == "1" })
	next := filepath.Join(dir, "next")
	if err := errors.Join(os.WriteFile(next, []byte("2"), 0o644), os.Rename(next, release)); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "second release", func() bool { return out.String() == "12" })
	j.end(p)
}

// TestSandboxThatIsNotMade: nothing is left of one that was given up on its way, and the
// error says why.
func TestSandboxThatIsNotMade(t *testing.T) {
	t.Parallel()
	j, boxes := newSandboxJail(t)
	hurry, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := j.rt.Start(hurry, j.spec("alice", "true")); err == nil {
		t.Error("it was made in time")
	}
	if err := os.Chmod(filepath.Dir(boxes), 0o700); err != nil { // the sandbox is a stranger there
		t.Fatal(err)
	}
	_, err := j.rt.Start(t.Context(), j.spec("alice", "true"))
	if err := os.Chmod(filepath.Dir(boxes), 0o711); err != nil {
		t.Fatal(err)
	}
	if tenement.CodeOf(err) != tenement.CodeUnavailable || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("error %v", err)
	}
	if tenement.HintOf(err) == "" || strings.Contains(err.Error(), "JSON") { // which is a consequence
		t.Errorf("error %v, hint %q", err, tenement.HintOf(err))
	}
	text := filepath.Join(t.TempDir(), "text") // this one comes as far as to its program
	if err := os.WriteFile(text, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := j.spec("alice", "")
	s.Service.Command = []tenement.Template{tenement.MustTemplate(text)}
	if _, err := j.rt.Start(t.Context(), s); tenement.CodeOf(err) != tenement.CodeUnavailable || !strings.Contains(err.Error(), "exec format error") {
		t.Errorf("error %v", err)
	}
}

func TestSandboxSweep(t *testing.T) {
	t.Parallel()
	j, boxes := newSandboxJail(t)
	p, err := j.rt.Start(t.Context(), j.spec("alice", "exec sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(boxes, "api.bob.left")
	if err := errors.Join(os.MkdirAll(filepath.Join(left, "rootfs"), 0o700), os.WriteFile(filepath.Join(left, "config.json"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := j.rt.(*runtime.Sandbox).Sweep(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(boxes); err != nil || len(entries) != 1 || !strings.HasPrefix(entries[0].Name(), "api.alice.") {
		t.Errorf("left: %v, %v", entries, err)
	}
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Errorf("what is spared cannot be signalled any more: %v", err)
	}
	j.end(p)
}

func TestRemoveBundles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "boxes")
	root := filepath.Join(dir, "api.alice.1", "rootfs")
	if err := errors.Join(os.MkdirAll(root, 0o700), os.WriteFile(filepath.Join(filepath.Dir(root), "config.json"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // once more is no error
		if err := runtime.RemoveBundles(dir); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it is left")
	}
}

func TestSandboxNeedsAnOpenDirectory(t *testing.T) {
	t.Parallel()
	j, boxes := newSandboxJail(t)
	closed := filepath.Join(filepath.Dir(boxes), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := runtime.NewSandbox(j.namespaces, filepath.Join(closed, "boxes"))
	if tenement.CodeOf(err) != tenement.CodeUnavailable || tenement.HintOf(err) != "chmod o+x "+closed {
		t.Errorf("error %v, hint %q", err, tenement.HintOf(err))
	}
}

func TestWithoutRunsc(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	rt, closeRuntime, err := openSandbox(t.TempDir())
	if err != nil {
		requireRoot(t, err)
	}
	_, err = rt.Start(t.Context(), runtime.Spec{Instance: tenement.InstanceID{Service: "api", Name: "alice"}, Service: &tenement.Service{Name: "api"}, UID: 1})
	if tenement.CodeOf(err) != tenement.CodeUnavailable || !strings.Contains(tenement.HintOf(err), runtime.RunscInstall) {
		t.Errorf("error %v, hint %q", err, tenement.HintOf(err))
	}
	if err := closeRuntime(); err != nil {
		t.Error(err)
	}
}

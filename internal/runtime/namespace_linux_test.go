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
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/cgroup"
	"tenement/internal/listening"
	"tenement/internal/network"
	"tenement/internal/rootless"
	"tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
)

func init() {
	kinds["namespace"] = openNamespace
	if len(os.Args) == 3 && os.Args[1] == userNamespaceArg {
		fmt.Println(userNamespace(os.Args[2]))
		os.Exit(0)
	}
}

// within are the namespaces that the tests themselves are in, when an ordinary user runs
// them.
var within *rootless.Namespaces

// enterVariable names, to tests that an ordinary user runs, the directory of their
// namespaces.
const enterVariable = "TENEMENT_TEST_ENTER"

func init() {
	var err error
	switch dir := os.Getenv(enterVariable); {
	case len(os.Args) == 2 && os.Args[1] == rootless.KeeperCommand:
		err = rootless.Keep()
	case dir != "" && !rootless.Inside():
		err = rootless.Enter(dir)
	default:
		within, err = rootless.Open()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestWithoutRoot has an ordinary user run the tests of the runtime.
func TestWithoutRoot(t *testing.T) {
	t.Parallel()
	runtimetest.RequireUser(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	user := runtimetest.NewUser(t)
	tests := user.Command(user.Install(t, self), "-test.run=^TestNamespace", "-test.v")
	tests.Env = append(tests.Env, enterVariable+"="+filepath.Join(user.Dir, "state"), "TMPDIR="+user.Dir, "TENEMENT_REQUIRE=root,cgroup,"+os.Getenv("TENEMENT_REQUIRE"))
	out, err := tests.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if passed := strings.Count(string(out), "\n--- PASS: TestNamespace"); passed < 10 {
		t.Errorf("only %d tests passed:\n%s", passed, out)
	}
	t.Logf("%d tests passed, %d were skipped", strings.Count(string(out), "--- PASS"), strings.Count(string(out), "--- SKIP"))
}

func openNamespace(dir string) (runtime.Runtime, func() error, error) { return openPrepared(dir, 0) }

// openPrepared keeps some networks ready, as a daemon does.
func openPrepared(dir string, ready int) (runtime.Runtime, func() error, error) {
	name := fmt.Sprintf("%x", sha256.Sum256([]byte(dir)))
	tree, err := cgroup.Open("tenement-test-" + name)
	if err != nil {
		return nil, nil, err
	}
	var events *listening.Events
	closeEvents := func() error { return nil }
	if within == nil {
		if events, closeEvents, err = openEvents(tree); err != nil {
			return nil, nil, err
		}
	}
	host, err := runtime.NewHost(filepath.Join(dir, "output"), tree, within, events, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	pool, err := network.Open(network.Options{Name: name[:8], Ready: ready, Within: within != nil, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, err
	}
	rt, err := runtime.NewNamespace(host, pool, filepath.Join(dir, "root"))
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- pool.Run(ctx) }()
	return rt, func() error {
		cancel()
		return errors.Join(<-ran, rt.Close(), pool.Close(), closeEvents(), tree.Close())
	}, nil
}

func TestNamespace(t *testing.T) {
	t.Parallel()
	_, closeRuntime, err := openNamespace(t.TempDir())
	if err != nil {
		requireRoot(t, err)
	}
	if err := closeRuntime(); err != nil {
		t.Fatal(err)
	}
	runtimetest.Suite(t, kinds, "namespace")
}

// jail is a runtime of the test's own, with instances that run shell scripts in it.
type jail struct {
	t       *testing.T
	rt      runtime.Runtime
	dataDir string // of all

	namespaces *runtime.Namespace
}

func newJail(t *testing.T, hidden ...string) *jail {
	t.Helper()
	host, err := runtime.NewHost(filepath.Join(t.TempDir(), "output"), nil, within, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	pool, err := network.Open(network.Options{Name: "jail", Within: within != nil, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := runtime.NewNamespace(host, pool, filepath.Join(t.TempDir(), "root"), hidden...)
	if err != nil {
		requireRoot(t, err)
	}
	t.Cleanup(func() {
		if err := errors.Join(rt.Close(), pool.Close()); err != nil {
			t.Error(err)
		}
	})
	return &jail{t: t, rt: rt, dataDir: t.TempDir(), namespaces: rt}
}

func requireRoot(t *testing.T, err error) {
	t.Helper()
	if strings.Contains(os.Getenv("TENEMENT_REQUIRE"), "root") {
		t.Fatal(err)
	}
	t.Skipf("%v (run as root on Linux 5.12 or newer)", err)
}

// spec is an instance that runs a script.
func (j *jail) spec(name, script string) runtime.Spec {
	j.t.Helper()
	dir := filepath.Join(j.dataDir, "api", name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		j.t.Fatal(err)
	}
	uid, err := runtimetest.OwnUID("namespace", dir)
	if err != nil {
		j.t.Fatal(err)
	}
	return runtime.Spec{
		Instance: tenement.InstanceID{Service: "api", Name: name}, DataDir: dir, UID: uid,
		Service: &tenement.Service{
			Name: "api", DataDir: filepath.Dir(dir), Egress: tenement.EgressDeny,
			Command: []tenement.Template{tenement.MustTemplate("sh"), tenement.MustTemplate("-c"), tenement.MustTemplate(script)},
		},
	}
}

// run gives what an instance printed, on both streams, until it ended.
func (j *jail) run(s runtime.Spec) string {
	j.t.Helper()
	var out runtimetest.Buffer
	s.Stdout, s.Stderr = &out, &out
	p, err := j.rt.Start(j.t.Context(), s)
	if err != nil {
		j.t.Fatal(err)
	}
	runtimetest.Within(j.t, "end", p.Exited())
	if err := p.Release(j.t.Context()); err != nil {
		j.t.Error(err)
	}
	return out.String()
}

func (j *jail) sh(script string) string {
	j.t.Helper()
	return j.run(j.spec("alice", script))
}

func TestNamespaceShowsOnlyWhatIsNamed(t *testing.T) {
	t.Parallel()
	j := newJail(t)
	j.spec("bob", "")
	s := j.spec("alice", `cd /; echo there: *; echo $(ls -A /tmp /run /dev/shm); echo $(ls -A $DATA_DIR/.. $DATA_DIR/../..); cat /proc/1/environ /root/x /etc/shadow; ls /sys; ls -d /proc/[0-9]* | wc -l; id -u; hostname; cat /etc/hosts | head -1`)
	got := j.run(s)
	for _, want := range []string{
		"there: bin ", "/..: alice /", "/../..: api\n", "cat: /proc/1/environ: No such file", "cat: /etc/shadow: No such file", "/root/x: No such file",
		"\n" + strconv.Itoa(s.UID) + "\n", "\nalice\n", "\n127.0.0.1 localhost alice\n", "/sys': No such file",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	_, top, _ := strings.Cut(got, "there: ") // the streams may come in any order
	top, _, _ = strings.Cut(top, "\n")
	for name := range strings.FieldsSeq(top) {
		if !slices.Contains(strings.Fields("bin dev etc lib lib32 lib64 libx32 proc run sbin tmp usr var nix gnu"), name) {
			t.Errorf("/%s is there", name)
		}
	}
}

func TestNamespaceLeavesNoRights(t *testing.T) {
	t.Parallel()
	got := newJail(t).sh(`grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Umask)' /proc/self/status; ulimit -c; wc -c < /proc/locks`)
	mask := unix.Umask(0) // which is the process's: for the time of two system calls
	unix.Umask(mask)
	if own := fmt.Sprintf("Umask:\t%04o\n", mask); !strings.Contains(got, own) {
		t.Errorf("no %q in\n%s", own, got)
	}
	for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "Groups:\t \n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestNamespaceIsOnlyChangedWhereItMay(t *testing.T) {
	t.Parallel()
	j := newJail(t)
	readable, writable := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Chmod(writable, 0o777), os.Chmod(readable, 0o777)); err != nil {
		t.Fatal(err)
	}
	s := j.spec("alice", fmt.Sprintf(`
for d in $DATA_DIR /tmp /dev/shm %[2]s; do echo x > $d/file && mkdir $d/dir && mv $d/file $d/dir && echo "$d yes"; done
for d in / /usr /etc /run /dev /proc /var %[1]s $DATA_DIR/..; do echo x 2>/dev/null > $d/file || mkdir $d/dir 2>/dev/null || echo "$d no"; done
echo null > /dev/null; echo to-stdout > /dev/stdout; echo to-stderr >> /dev/stderr; cat %[1]s/there`, readable, writable))
	s.Service.Readable, s.Service.Writable = []string{readable}, []string{writable}
	if err := os.WriteFile(filepath.Join(readable, "there"), []byte("read\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, d := range []string{s.DataDir, "/tmp", "/dev/shm", writable} {
		want.WriteString(d + " yes\n")
	}
	for _, d := range []string{"/", "/usr", "/etc", "/run", "/dev", "/proc", "/var", readable, s.DataDir + "/.."} {
		want.WriteString(d + " no\n")
	}
	want.WriteString("to-stdout\nto-stderr\nread\n")
	if got := sortedLines(j.run(s)); got != sortedLines(want.String()) {
		t.Errorf("%s", cmp.Diff(sortedLines(want.String()), got))
	}
	if _, err := os.Stat(filepath.Join(writable, "dir", "file")); err != nil {
		t.Error(err)
	}
}

func sortedLines(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// userNamespaceArg, as its first argument, makes the test binary try to get a user
// namespace by the system call that is its second.
const userNamespaceArg = "user-namespace-program"

func userNamespace(call string) error {
	if call == "unshare" {
		return unix.Unshare(unix.CLONE_NEWUSER)
	}
	number, args := uintptr(unix.SYS_CLONE), [2]uintptr{unix.CLONE_NEWUSER | uintptr(unix.SIGCHLD)}
	if call == "clone3" {
		cloneArgs := [8]uint64{0: unix.CLONE_NEWUSER, 4: uint64(unix.SIGCHLD)} // struct clone_args, linux/sched.h
		number, args = unix.SYS_CLONE3, [2]uintptr{uintptr(unsafe.Pointer(&cloneArgs)), unsafe.Sizeof(cloneArgs)}
	}
	pid, _, errno := unix.RawSyscall(number, args[0], args[1], 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0) // it does not return
	}
	return nil
}

// TestNamespaceMakesNoUserNamespace: in one it would have every capability.
func TestNamespaceMakesNoUserNamespace(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	j := newJail(t)
	for _, call := range []string{"clone", "clone3", "unshare"} {
		s := j.spec("alice", "")
		s.Service.Command = []tenement.Template{tenement.MustTemplate(self), tenement.MustTemplate(userNamespaceArg), tenement.MustTemplate(call)}
		if got := j.run(s); got != "operation not permitted\n" {
			t.Errorf("%s: %q", call, got)
		}
	}
}

func TestNamespaceHidesTheDataOfOthersWhereverItLies(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "tenement.toml")
	if err := os.Chmod(filepath.Dir(filepath.Dir(secret)), 0o755); err != nil { // of all that the test makes
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	j := newJail(t, secret)
	j.spec("bob", "")
	s := j.spec("alice", fmt.Sprintf("cat %s; ls -A %s %s/api", secret, j.dataDir, j.dataDir))
	s.Service.Readable = []string{filepath.Dir(secret), filepath.Dir(j.dataDir)}
	got := j.run(s)
	if strings.Contains(got, "secret") && !strings.Contains(got, "cannot open") || strings.Contains(got, "bob") || !strings.Contains(got, "alice") {
		t.Errorf("%s", got)
	}
}

// TestNamespaceRunsAProgramBesideTheData: with a data directory among the service's files.
func TestNamespaceRunsAProgramBesideTheData(t *testing.T) {
	t.Parallel()
	j := newJail(t)
	if err := os.Chmod(filepath.Dir(j.dataDir), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"app": "#!/bin/sh\nls -A; cat notes", "notes": "read\n", "secret": "secret"} {
		if err := os.WriteFile(filepath.Join(j.dataDir, name), []byte(text), 0o755); err != nil { //nolint:gosec // programs on purpose
			t.Fatal(err)
		}
	}
	s := j.spec("alice", "")
	s.Service.Workdir = tenement.MustTemplate(j.dataDir)
	s.Service.Command = []tenement.Template{tenement.MustTemplate("./app")}
	s.Service.Readable = []string{filepath.Join(j.dataDir, "notes")}
	if got := j.run(s); got != "api\napp\nnotes\nread\n" {
		t.Errorf("%q", got)
	}
}

// TestNamespaceShowsWhatIsThereNow: a deployment that puts another directory in the place
// of the one before is seen by the next process.
func TestNamespaceShowsWhatIsThereNow(t *testing.T) {
	t.Parallel()
	j := newJail(t)
	release := filepath.Join(t.TempDir(), "release")
	if err := os.Chmod(filepath.Dir(release), 0o755); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		next := fmt.Sprint(release, n)
		if err := errors.Join(os.Mkdir(next, 0o755), os.WriteFile(filepath.Join(next, "version"), fmt.Appendln(nil, n), 0o644)); err != nil { //nolint:gosec // tenants read it
			t.Fatal(err)
		}
		if err := errors.Join(os.RemoveAll(release), os.Rename(next, release)); err != nil {
			t.Fatal(err)
		}
		s := j.spec("alice", "cat "+release+"/version")
		s.Service.Readable = []string{release}
		if got, want := j.run(s), fmt.Sprintln(n); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	s := j.spec("alice", "")
	s.Service.Readable = []string{release + "-missing"}
	if _, err := j.rt.Start(t.Context(), s); tenement.CodeOf(err) != tenement.CodeUnavailable || tenement.HintOf(err) == "" {
		t.Errorf("error %v", err)
	}
}

// TestNamespaceShowsAllOfEtc: what is shown of it already is not written to.
func TestNamespaceShowsAllOfEtc(t *testing.T) {
	t.Parallel()
	j := newJail(t)
	before, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Skip("this machine has no resolv.conf")
	}
	s := j.spec("alice", "cat /etc/resolv.conf")
	s.Service.Readable = []string{"/etc"}
	if got := j.run(s); got != string(before) {
		t.Errorf("%q, the machine's is %q", got, before)
	}
}

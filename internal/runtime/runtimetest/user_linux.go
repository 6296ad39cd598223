package runtimetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tenement/internal/cgroup"
)

// The ordinary user of [User], whom every machine has.
const (
	UserID   = 65534
	userName = "nobody"
)

// User is an ordinary user of this machine, with a cgroup to divide, for a test that runs
// as root.
type User struct {
	Dir    string // theirs, and reached by everybody
	Cgroup string
	leaf   string   // in or below it, where their commands begin
	env    []string // of all commands
	subids string
}

// NewUser makes one, of whom nothing is left after the test.
func NewUser(t *testing.T) *User {
	t.Helper()
	u := &User{subids: filepath.Join(t.TempDir(), "subids")}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	u.Give(t, UserIDs)
	var err error
	u.Dir, err = os.MkdirTemp("", "user") //nolint:usetesting // others reach what is in it
	must(err)
	t.Cleanup(func() { _ = os.RemoveAll(u.Dir) }) // a left-over in a temporary directory
	must(os.Chmod(u.Dir, 0o755))
	must(os.Chown(u.Dir, UserID, UserID))
	must(u.makeCgroup(t))
	return u
}

// makeCgroup gives the user a cgroup in that of the test, or where tests are told to have
// theirs: then with its controllers, and one for tenants alone in it.
func (u *User) makeCgroup(t *testing.T) error {
	parent, err := cgroup.Of(os.Getpid())
	if err != nil {
		return err
	}
	given := os.Getenv(cgroup.ParentVariable)
	if given != "" {
		parent = given
		tree, err := cgroup.Open("user") // which turns on the controllers of parent
		if err != nil {
			return err
		}
		if err := tree.Close(); err != nil {
			return err
		}
	}
	if u.Cgroup, err = os.MkdirTemp(parent, "user"); err != nil { //nolint:usetesting // no file system for anything else
		return err
	}
	t.Cleanup(func() {
		if err := os.WriteFile(filepath.Join(u.Cgroup, "cgroup.kill"), []byte("1"), 0); err != nil {
			t.Error(err)
		}
		removeGroups(t, u.Cgroup)
	})
	u.leaf = u.Cgroup
	if given == "" {
		return delegate(u.Cgroup)
	}
	tenants := filepath.Join(u.Cgroup, "tenants")
	u.leaf, u.env = filepath.Join(u.Cgroup, "own"), []string{cgroup.ParentVariable + "=" + tenants}
	err = os.WriteFile(filepath.Join(u.Cgroup, "cgroup.subtree_control"), []byte("+cpu +io +memory +pids"), 0)
	return errors.Join(err, os.Mkdir(u.leaf, 0o755), os.Mkdir(tenants, 0o755), delegate(u.Cgroup), delegate(u.leaf), delegate(tenants))
}

// delegate gives a cgroup to the user (cgroup-v2.rst, "Delegation").
func delegate(dir string) error {
	var err error
	for _, file := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
		err = errors.Join(err, os.Chown(filepath.Join(dir, file), UserID, UserID))
	}
	return err
}

// removeGroups removes a cgroup that is empty, or is just being emptied.
func removeGroups(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			removeGroups(t, filepath.Join(dir, entry.Name()))
		}
	}
	for err = unix.EBUSY; err == unix.EBUSY; { //nolint:errorlint // straight from the kernel, which is about to let go
		err = unix.Rmdir(dir)
	}
	if err != nil {
		t.Error(err)
	}
}

// Give has the user have so many ids for others; 0 = none.
func (u *User) Give(t *testing.T, count int) {
	t.Helper()
	text := ""
	if count > 0 {
		text = fmt.Sprintf("%s:%d:%d\n", userName, subordID, count)
	}
	if err := os.WriteFile(u.subids, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Install gives the user a program, and the path that they have it at.
func (u *User) Install(t *testing.T, program string) string {
	t.Helper()
	path := filepath.Join(u.Dir, filepath.Base(program))
	text, err := os.ReadFile(program)
	if err == nil {
		err = os.WriteFile(path, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Command is one that the user runs.
func (u *User) Command(args ...string) *exec.Cmd { return u.CommandAfter("", args...) }

// CommandAfter runs a script as root in the mount namespace that the command is to have.
func (u *User) CommandAfter(script string, args ...string) *exec.Cmd {
	script = `mount --bind "$1" /etc/subuid
mount --bind "$1" /etc/subgid
echo $$ > "$2"/cgroup.procs
shift 2
` + script + `
exec setpriv --reuid=nobody --regid=65534 --clear-groups --inh-caps=-all "$@"`
	cmd := exec.Command("sh", append([]string{"-ec", script, "sh", u.subids, u.leaf}, args...)...)
	cmd.Dir = u.Dir
	cmd.Env = append(append(os.Environ(), "HOME="+u.Dir), u.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	return cmd
}

// RequireUser skips where there can be no [User], or fails there if TENEMENT_REQUIRE lists
// what is missing.
func RequireUser(t *testing.T) {
	t.Helper()
	for _, program := range []string{"newuidmap", "setpriv", "nsenter"} {
		_, err := exec.LookPath(program)
		if err == nil && os.Geteuid() != 0 {
			program, err = "root", fmt.Errorf("only root can become another user")
		}
		switch {
		case err == nil:
		case strings.Contains(os.Getenv("TENEMENT_REQUIRE"), program):
			t.Fatal(err)
		default:
			t.Skipf("%v: as root, apt install uidmap util-linux", err)
		}
	}
}

package rootless

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"tenement"
)

// Enter begins this program again, as the same process and with the same arguments and
// inherited descriptors, inside the namespaces that belong to stateDir, which is made if
// need be. It returns with an error or not at all. CodeUnavailable names what is missing.
func Enter(stateDir string) error {
	if err := Check(); err != nil {
		return err
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return err
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return unavailable(err, "install util-linux")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	keeper, err := findKeeper(filepath.Join(stateDir, keeperFile))
	if err != nil {
		return err
	}
	args := append([]string{nsenter, "--user=/proc/" + strconv.Itoa(keeper) + "/ns/user", self}, os.Args[1:]...)
	env := append(os.Environ(), keeperVariable+"="+strconv.Itoa(keeper), userVariable+"="+userText())
	return &os.PathError{Op: "exec", Path: nsenter, Err: unix.Exec(nsenter, args, env)}
}

const keeperFile = "keeper"

// userVariable is who the root of the user namespace is outside of it: uid:gid.
const userVariable = "TENEMENT_KEEPER_USER"

func userText() string { return strconv.Itoa(os.Getuid()) + ":" + strconv.Itoa(os.Getgid()) }

// Check is nil if [Enter] can be expected to work for this user on this machine.
func Check() error {
	_, _, err := ranges()
	if err != nil {
		return err
	}
	for _, program := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(program); err != nil {
			return unavailable(err, "as root: apt install uidmap")
		}
	}
	trial := exec.Command("true")
	trial.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	if err := trial.Run(); err != nil {
		return refused(err)
	}
	return nil
}

// Settings of the kernel that keep ordinary users from making user namespaces, with the
// value that lets them: of all Linux, of Debian's, and of Ubuntu's.
var settings = []struct{ name, refuses, allows string }{
	{"user.max_user_namespaces", "0", "65536"},
	{"kernel.unprivileged_userns_clone", "0", "1"},
	{"kernel.apparmor_restrict_unprivileged_userns", "1", "0"},
}

// refused explains why the kernel makes no user namespace.
func refused(err error) error {
	for _, s := range settings {
		text, readErr := os.ReadFile("/proc/sys/" + strings.ReplaceAll(s.name, ".", "/"))
		if readErr == nil && strings.TrimSpace(string(text)) == s.refuses {
			return unavailable(fmt.Errorf("%s is %s: %w", s.name, s.refuses, err), fmt.Sprintf("as root: sysctl -w %s=%s", s.name, s.allows))
		}
	}
	return unavailable(err, "let ordinary users make user namespaces (user_namespaces(7))")
}

// ranges are the ids that the user may give to tenants.
func ranges() (uids, gids Range, err error) {
	who, err := user.Current()
	if err != nil {
		return uids, gids, err
	}
	if uids, err = subordinate(subUIDs, who.Username, os.Getuid()); err != nil {
		return uids, gids, err
	}
	gids, err = subordinate(subGIDs, who.Username, os.Getuid())
	return uids, gids, err
}

// findKeeper gives the pid of the keeper of file, which is started if there is none. The
// keeper has the file locked as long as it lives, and its pid is in it.
func findKeeper(path string) (pid int, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return startKeeper(file)
	case !errors.Is(err, unix.EWOULDBLOCK):
		return 0, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return 0, err
	}
	pid, _ = strconv.Atoi(string(text))
	if !isKeeper(pid) { // then somebody who starts one has the lock
		return 0, &tenement.Error{
			Code: tenement.CodeConflict, Op: enterOp, Err: errors.New("another daemon is just starting on the same data directory"), Hint: "try again",
		}
	}
	return pid, nil
}

func isKeeper(pid int) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return err == nil && strings.HasSuffix(string(text), "\x00"+KeeperCommand+"\x00")
}

// Kept says whether the namespaces that belong to stateDir are there.
func Kept(stateDir string) bool {
	file, err := os.Open(filepath.Join(stateDir, keeperFile))
	if err != nil {
		return false
	}
	defer file.Close()
	return errors.Is(unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// KeeperCommand is the subcommand of this program that calls [Keep].
const KeeperCommand = "keep-namespaces"

// startKeeper returns once the keeper has all that it is to keep; on an error it ends.
func startKeeper(file *os.File) (pid int, err error) {
	goRead, goWrite, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer goRead.Close()
	defer goWrite.Close()
	doneRead, doneWrite, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer doneRead.Close()
	defer doneWrite.Close()

	keeper := exec.Command("/proc/self/exe", KeeperCommand)
	keeper.Env = []string{}
	keeper.ExtraFiles = []*os.File{goRead, doneWrite, file} // goFD, doneFD, and the lock
	keeper.SysProcAttr = &syscall.SysProcAttr{
		Setsid:      true,
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
	}
	if err := keeper.Start(); err != nil {
		return 0, refused(err)
	}
	pid = keeper.Process.Pid
	defer func() {
		if err != nil {
			err = errors.Join(err, keeper.Process.Kill())
			_ = keeper.Wait() // it was killed
		}
	}()
	if err := mapIDs(pid); err != nil {
		return 0, err
	}
	if err := errors.Join(file.Truncate(0), doneWrite.Close()); err != nil {
		return 0, err
	}
	if _, err := file.WriteAt([]byte(strconv.Itoa(pid)), 0); err != nil {
		return 0, err
	}
	if _, err := goWrite.Write([]byte{'\n'}); err != nil {
		return 0, err
	}
	said, err := bufio.NewReader(doneRead).ReadString('\n')
	if err != nil || said != "kept\n" {
		return 0, unavailable(fmt.Errorf("the keeper of namespaces: %s", strings.TrimSpace(said)), "have nothing mounted over parts of /proc")
	}
	return pid, nil
}

// mapIDs makes the user root in the user namespace of a process. The ids of tenants have
// the same numbers inside as outside, so that what is on record and on the disk agrees.
func mapIDs(pid int) error {
	uids, gids, err := ranges()
	if err != nil {
		return err
	}
	count := min(uids.Count, gids.Count)
	for _, m := range []struct {
		program    string
		own, first int
	}{{"newuidmap", os.Getuid(), uids.First}, {"newgidmap", os.Getgid(), gids.First}} {
		args := []string{strconv.Itoa(pid), "0", strconv.Itoa(m.own), "1", strconv.Itoa(uids.First), strconv.Itoa(m.first), strconv.Itoa(count)}
		if out, err := exec.Command(m.program, args...).CombinedOutput(); err != nil {
			return unavailable(fmt.Errorf("%s: %w: %s", m.program, err, strings.TrimSpace(string(out))),
				"let "+m.program+" be setuid root, also to the daemon (not under no_new_privs)")
		}
	}
	return nil
}

package runtime

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dropRights takes from the calling thread, and from whatever it starts, every way to
// more rights than a user without any has. What it has itself it needs until the exec.
func dropRights() error {
	for capability := range uintptr(64) {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) { // the kernel knows no more
			break
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", capability, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	if err := clearInheritable(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

func clearInheritable() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // low and high 32 bits
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	sets[0].Inheritable, sets[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("drop inheritable capabilities: %w", err)
	}
	return nil
}

// Rights that Landlock knows, by the version of its ABI that brought them
// (Documentation/userspace-api/landlock.rst).
const (
	landlockV1 = 1<<13 - 1

	mayRead = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	mayUse  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// LandlockVersion is the version of Landlock's ABI that this kernel has; 0 = none.
func LandlockVersion() int { return landlockABI() }

var landlockABI = sync.OnceValue(func() int {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(version)
})

func landlockRights() (rights uint64) {
	rights = landlockV1
	for _, later := range []struct {
		abi   int
		right uint64
	}{{2, unix.LANDLOCK_ACCESS_FS_REFER}, {3, unix.LANDLOCK_ACCESS_FS_TRUNCATE}, {5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV}} {
		if landlockABI() >= later.abi {
			rights |= later.right
		}
	}
	return rights
}

// landlock is a second wall behind the file system that a process sees: it may read all of
// that, and change only what lies below the writable paths and the open files. From ABI 6
// on it can signal nobody outside of it, and reach no abstract socket, unless it speaks to
// us by one: all that there are in its network are its own and that one. A kernel without
// Landlock has the first wall only.
func landlock(writable []string, open []*os.File, speaks bool) error {
	if landlockABI() == 0 {
		return nil
	}
	rights := landlockRights()
	attr := unix.LandlockRulesetAttr{Handled_access_fs: rights}
	if landlockABI() >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL
		if !speaks {
			attr.Scoped |= unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		}
	}
	ruleset, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("make a Landlock ruleset: %w", errno)
	}
	defer closeAllFDs([]int{int(ruleset)})
	err := errors.Join(allowBelow(ruleset, "/", mayRead&rights), allowBelow(ruleset, "/dev", mayUse&rights), allowBelow(ruleset, "/proc", mayUse&rights))
	for _, path := range writable {
		err = errors.Join(err, allowBelow(ruleset, path, rights))
	}
	for _, file := range open {
		err = errors.Join(err, allow(ruleset, int(file.Fd()), mayUse&rights&^unix.LANDLOCK_ACCESS_FS_IOCTL_DEV))
	}
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0, 0); errno != 0 {
		return fmt.Errorf("enforce a Landlock ruleset: %w", errno)
	}
	return nil
}

func allowBelow(ruleset uintptr, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open for Landlock", Path: path, Err: err}
	}
	defer closeAllFDs([]int{fd})
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= mayUse | unix.LANDLOCK_ACCESS_FS_EXECUTE
	}
	return allow(ruleset, fd, rights)
}

func allow(ruleset uintptr, fd int, rights uint64) error {
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, ruleset, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("add a Landlock rule: %w", errno)
	}
	return nil
}

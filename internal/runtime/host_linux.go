package runtime

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"tenement"
)

func cloneInto(attr *syscall.SysProcAttr, dir *os.File) {
	attr.UseCgroupFD = true
	attr.CgroupFD = int(dir.Fd())
}

// bootID tells this boot of the machine from every other (random(4)).
var bootID = sync.OnceValue(func() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
})

// identify gives what, with the pid, names one process for ever.
func identify(pid int) (startTime uint64, boot string) {
	startTime, err := readStartTime(pid)
	if err != nil {
		return 0, ""
	}
	return startTime, bootID()
}

// readStartTime is field 22 of proc_pid_stat(5). The command's name, field 2, is in
// parentheses and may itself contain anything, so fields are counted from its end.
func readStartTime(pid int) (uint64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	const afterName = 22 - 3
	_, rest, _ := cutLast(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) <= afterName {
		return 0, errors.New("unreadable /proc/pid/stat")
	}
	return strconv.ParseUint(fields[afterName], 10, 64)
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+len(sep):], true
}

// waitFor returns a func that blocks until our child has ended, and leaves it to be
// reaped. Where a pidfd cannot be had it returns at once and reaping blocks instead.
func waitFor(pid int) func() {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return func() {}
	}
	return waitPidfd(fd)
}

// waitPidfd blocks in the runtime's poller: a thousand awake instances hold no
// thread (pidfd_open(2): a pidfd is readable once the process has ended).
func waitPidfd(fd int) func() {
	f := os.NewFile(uintptr(fd), "pidfd")
	return func() {
		defer func() { _ = f.Close() }()
		conn, err := f.SyscallConn()
		if err != nil {
			return
		}
		_ = conn.Read(func(fd uintptr) bool { return ended(int(fd)) }) // fails only on a closed file
	}
}

func ended(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// adopt makes sure that ref is still the process it was. The pidfd comes first:
// from then on the pid cannot pass to another process unnoticed.
func adopt(ref tenement.Ref) (wait func(), err error) {
	if ref.BootID == "" || ref.BootID != bootID() {
		return nil, errors.New("it belongs to an earlier boot")
	}
	fd, err := unix.PidfdOpen(ref.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	start, err := readStartTime(ref.PID)
	if err == nil && start != ref.StartTime {
		err = fmt.Errorf("the pid has passed to another process (started at %d, not %d)", start, ref.StartTime)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return waitPidfd(fd), nil
}

// signalAdopted checks again who has the pid, through a pidfd so that it cannot
// change in between.
func signalAdopted(ref tenement.Ref, sig os.Signal) error {
	number, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("unsupported signal %v", sig)
	}
	fd, err := unix.PidfdOpen(ref.PID, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if start, err := readStartTime(ref.PID); err != nil || start != ref.StartTime {
		return os.ErrProcessDone
	}
	return unix.PidfdSendSignal(fd, number, nil, 0)
}

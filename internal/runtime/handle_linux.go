package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tenement"
)

// handle holds one process by a pidfd, which never comes to mean another process, as
// a pid does. It stays open until the whole tree is gone. The methods may be called
// concurrently.
type handle struct {
	pid       int
	child     bool   // ours to reap
	startTime uint64 // of an adopted one, that the pid in /proc still means it
	pidfd     *os.File
}

// checkHandles says whether this kernel has what a handle needs.
func checkHandles() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "open a pidfd", Err: err,
			Hint: "run on Linux 5.4 or newer, without a filter on pidfd_open(2)",
		}
	}
	return unix.Close(fd)
}

// keepDescriptors keeps those that the daemon itself was given by whoever started it (a
// shell's, a lock's) from tenants; those that Go opens never reach them.
func keepDescriptors() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd) // harmless on one that is closed by now
		}
	}
	return nil
}

func cloneInto(attr *syscall.SysProcAttr, dir *os.File) {
	attr.UseCgroupFD = true
	attr.CgroupFD = int(dir.Fd())
}

// spawn starts c as a child.
func spawn(c command, files []*os.File, attr *syscall.SysProcAttr) (*handle, error) {
	c, err := c.prepared()
	if err != nil {
		return nil, err
	}
	pidfd := -1
	attr.PidFD = &pidfd
	var child *os.Process
	err = withUsualSlice(func() (err error) {
		child, err = os.StartProcess(c.path, c.args, &os.ProcAttr{Dir: c.dir, Env: c.env, Files: files, Sys: attr})
		return err
	})
	if err != nil {
		if pidfd >= 0 {
			_ = unix.Close(pidfd)
		}
		return nil, err
	}
	h := newHandle(child.Pid, pidfd)
	h.child = true
	return h, child.Release() // the pidfd is enough, and one descriptor less
}

func newHandle(pid, pidfd int) *handle {
	_ = unix.SetNonblock(pidfd, true) // without it NewFile keeps the pidfd out of the poller
	return &handle{pid: pid, pidfd: os.NewFile(uintptr(pidfd), "pidfd")}
}

func (h *handle) close() { _ = h.pidfd.Close() }

// identify gives what, with the pid, names the process for ever.
func (h *handle) identify() (startTime uint64, boot string) {
	stat, err := readStat(h.pid)
	if err != nil {
		return 0, ""
	}
	return stat.startTime, bootID()
}

// signal is harmless once the process has ended.
func (h *handle) signal(sig syscall.Signal) error {
	return ignoreGone(h.send(sig, 0))
}

// signalGroup reaches the process group that the process led, also after its end, and
// fails with ESRCH when nobody is left in it.
func (h *handle) signalGroup(sig syscall.Signal) error {
	err := h.send(sig, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.9
		err = syscall.Kill(-h.pid, sig)
	}
	return err
}

func (h *handle) send(sig syscall.Signal, flags int) error {
	var err error
	if h.control(func(fd int) { err = unix.PidfdSendSignal(fd, sig, nil, flags) }) != nil {
		return syscall.ESRCH // it is closed, which is the one reason
	}
	return err
}

func (h *handle) control(f func(fd int)) error {
	conn, err := h.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Control(func(fd uintptr) { f(int(fd)) })
}

// reapWait bounds the wait for somebody else to reap what has ended, where only then
// the kernel tells its exit status. It takes an instant, unless the machine is very
// busy or its init is broken.
const reapWait = 500 * time.Millisecond

// wait blocks until the process has ended. It does so in the runtime's poller, that
// a thousand awake instances hold no thread: a pidfd is readable once the process has
// ended (pidfd_open(2)), and there is another event when it is reaped.
func (h *handle) wait() tenement.Exit {
	h.until(ended)
	if h.child {
		return h.reap()
	}
	if exit, ok := h.zombieExit(); ok {
		return exit
	}
	var exit tenement.Exit
	_ = h.pidfd.SetReadDeadline(time.Now().Add(reapWait)) // fails only on a closed file
	h.until(func(fd int) (settled bool) {
		exit, settled = exitInfo(fd)
		return settled
	})
	return exit
}

// until returns when ok does, which is asked now and after each event on the pidfd, or
// at the read deadline.
func (h *handle) until(ok func(fd int) bool) {
	conn, err := h.pidfd.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Read(func(fd uintptr) bool { return ok(int(fd)) }) // fails at the deadline and when closed
}

func (h *handle) hasEnded() bool {
	is := true // when the handle is closed
	_ = h.control(func(fd int) { is = ended(fd) })
	return is
}

func ended(pidfd int) bool {
	return poll(pidfd, unix.POLLIN)&unix.POLLIN != 0
}

// poll asks what is true of a descriptor now.
func poll(fd int, events int16) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	if n, err := unix.Poll(fds, 0); err != nil || n == 0 {
		return 0
	}
	return fds[0].Revents
}

func (h *handle) reap() tenement.Exit {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(h.pid, &status, 0, nil)
		if err == nil {
			return exitOf(status)
		}
		if !errors.Is(err, syscall.EINTR) {
			return tenement.Exit{Status: -1}
		}
	}
}

// zombieExit tells how an adopted process has ended as long as nobody has reaped it.
// Whoever may not know reads a 0 (proc_pid_stat(5), exit_code), and may not read its
// namespaces either.
func (h *handle) zombieExit() (_ tenement.Exit, ok bool) {
	if _, err := os.Readlink("/proc/" + strconv.Itoa(h.pid) + "/ns/user"); err != nil {
		return tenement.Exit{}, false
	}
	stat, err := readStat(h.pid)
	if err != nil || !stat.ended || stat.startTime != h.startTime {
		return tenement.Exit{}, false
	}
	return exitOf(stat.status), true
}

// exitInfo tells how a process that is no child of ours has ended (linux/pidfd.h,
// PIDFD_GET_INFO with PIDFD_INFO_EXIT, Linux 6.15). It is not settled until the
// process has been reaped; an older kernel never tells.
func exitInfo(pidfd int) (exit tenement.Exit, settled bool) {
	unknown := tenement.Exit{Status: -1}
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(pidfd, &info); err != nil {
		return unknown, true
	}
	if info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return unknown, false
	}
	return exitOf(syscall.WaitStatus(info.Exit_code)), true
}

// adopt finds the process of ref again. CodeNotFound: it is gone, or the pid has
// passed to a stranger. Any other error says nothing about it. The pidfd comes first:
// from then on the pid cannot pass to another process unnoticed.
func adopt(ref tenement.Ref) (_ *handle, err error) {
	op := "adopt process " + strconv.Itoa(ref.PID)
	gone := func(err error) error {
		return &tenement.Error{Code: tenement.CodeNotFound, Op: op, Err: err}
	}
	if ref.BootID == "" || ref.BootID != bootID() {
		return nil, gone(errors.New("it belongs to an earlier boot"))
	}
	fd, err := unix.PidfdOpen(ref.PID, unix.PIDFD_NONBLOCK)
	switch {
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // the latter two: a thread
		return nil, gone(err)
	case err != nil:
		return nil, &tenement.Error{Code: tenement.CodeInternal, Op: op, Err: err}
	}
	h := newHandle(ref.PID, fd)
	undo := cleanup{h.close}
	defer undo.unless(&err)
	stat, err := readStat(ref.PID)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH):
		return nil, gone(err)
	case err != nil:
		return nil, &tenement.Error{Code: tenement.CodeInternal, Op: op, Err: err}
	case stat.startTime != ref.StartTime:
		return nil, gone(fmt.Errorf("the pid has passed to another process (started at %d, not %d)", stat.startTime, ref.StartTime))
	case stat.ended:
		return nil, gone(h.endGroup(ref))
	}
	h.startTime = stat.startTime
	return h, nil
}

// endGroup ends what is left in the process group of a main process that has ended
// and was not reaped. Only until then does the pid prove that the group is ours; one
// with a cgroup is found there.
func (h *handle) endGroup(ref tenement.Ref) error {
	gone := errors.New("it has ended")
	if ref.Cgroup != "" {
		return gone
	}
	return errors.Join(gone, ignoreGone(h.send(syscall.SIGKILL, unix.PIDFD_SIGNAL_PROCESS_GROUP)))
}

// BootID tells this boot of the machine from every other (random(4)); "" if unknown.
func BootID() string { return bootID() }

var bootID = sync.OnceValue(func() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
})

// stat is the part of proc_pid_stat(5) that says who has a pid.
type stat struct {
	ended     bool               // a zombie, field 3
	startTime uint64             // clock ticks since boot, field 22
	status    syscall.WaitStatus // once it has ended, field 52
}

// readStat counts fields from the end of the command's name, field 2, which is in
// parentheses and may itself contain anything.
func readStat(pid int) (stat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	const state, startTime, exitCode = 0, 22 - 3, 52 - 3 // counted from field 3
	_, rest, _ := cutLast(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) <= exitCode {
		return stat{}, errors.New("unreadable /proc/pid/stat")
	}
	start, startErr := strconv.ParseUint(fields[startTime], 10, 64)
	status, statusErr := strconv.ParseUint(fields[exitCode], 10, 32)
	return stat{
		ended:     fields[state] == "Z" || fields[state] == "X",
		startTime: start,
		status:    syscall.WaitStatus(status),
	}, errors.Join(startErr, statusErr)
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+len(sep):], true
}

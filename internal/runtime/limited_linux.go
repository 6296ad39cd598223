package runtime

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"tenement"
)

// startLimited is os.StartProcess with a bound on the descriptors of the process, which
// holds before its first instruction: the child is traced, stops once it has become its
// program, is given the bound and let go. The daemon's own bound, and what any other
// child is given meanwhile, do not change, and Go would put the daemon's first one in
// force again in the child.
//
// Only the thread that starts a child can trace it; the caller's goroutine is on one
// thread until this returns. Signals are blocked there meanwhile, for a child that a
// signal stopped before it is its program would never let StartProcess return; all but
// SIGTRAP, which is what stops it then.
func startLimited(c command, attr *os.ProcAttr) (*os.Process, error) {
	if c.openFiles == 0 {
		return os.StartProcess(c.path, c.args, attr)
	}
	attr.Sys.Ptrace = true
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var blocked, before unix.Sigset_t
	for i := range blocked.Val {
		blocked.Val[i] = ^blocked.Val[i]
	}
	blocked.Val[0] &^= 1 << (unix.SIGTRAP - 1)
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &blocked, &before); err != nil {
		return nil, err
	}
	child, err := os.StartProcess(c.path, c.args, attr)
	if err == nil {
		err = limitStopped(child.Pid, c.openFiles, before)
	}
	if unblock := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); unblock != nil {
		err = errors.Join(err, unblock)
	}
	switch {
	case err == nil:
		return child, nil
	case child == nil:
		return nil, startFailed(err)
	}
	return nil, errors.Join(err, abandon(child))
}

// limitStopped bounds the descriptors of a traced child and lets it go, with the signals
// blocked that are in mask.
func limitStopped(pid, openFiles int, mask unix.Sigset_t) error {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, unix.WALL, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the program to be loaded: %w", err)
		}
	}
	if !status.Stopped() || status.StopSignal() != unix.SIGTRAP {
		return errors.New("it ended before its first instruction")
	}
	limit := unix.Rlimit{Cur: uint64(openFiles), Max: uint64(openFiles)}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		return unlimited(err)
	}
	if err := setSignalMask(pid, mask); err != nil {
		return fmt.Errorf("unblock its signals: %w", err)
	}
	return unix.PtraceDetach(pid)
}

// kernelSigset is the size of a signal set as the kernel has it, in bytes.
const kernelSigset = 8

// setSignalMask is ptrace(2) with PTRACE_SETSIGMASK.
func setSignalMask(pid int, mask unix.Sigset_t) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SETSIGMASK, uintptr(pid), kernelSigset, uintptr(unsafe.Pointer(&mask)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// abandon ends a child that has not begun.
func abandon(child *os.Process) error {
	_ = child.Kill() // fails when it has ended
	_, err := unix.Wait4(child.Pid, nil, unix.WALL, nil)
	if errors.Is(err, unix.ECHILD) {
		err = nil // its end was seen before
	}
	return errors.Join(err, child.Release())
}

func unlimited(err error) error {
	e := &tenement.Error{Code: tenement.CodeUnavailable, Op: "set open_files_limit", Err: err}
	if errors.Is(err, unix.EPERM) {
		e.Hint = "only root may exceed the daemon's own hard limit or fs.nr_open: lower open_files_limit, or raise LimitNOFILE= of the daemon's unit"
	}
	return e
}

// startFailed tells a program that cannot be run from one that must not be traced.
func startFailed(err error) error {
	text, unread := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if !errors.Is(err, syscall.EPERM) || unread != nil || len(text) == 0 || text[0] < '2' {
		return err
	}
	return &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "set open_files_limit", Err: err,
		Hint: "kernel.yama.ptrace_scope forbids to stop a program before it begins: set it to 1, or leave open_files_limit away",
	}
}

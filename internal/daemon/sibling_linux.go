package daemon

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// siblingOfManaged makes the next daemon a child of the service manager, if there is one,
// as this one is. A main process that was another's child when systemd was told of it is
// not waited for when the unit stops: systemd kills it a moment after it asked it to end.
func siblingOfManaged() *syscall.SysProcAttr {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	return &syscall.SysProcAttr{Cloneflags: unix.CLONE_PARENT}
}

// awaitEnd returns once a process has ended that somebody else reaps.
func awaitEnd(p *os.Process) {
	_ = p.WithHandle(func(pidfd uintptr) { // fails when it was gone from the beginning
		for again := true; again; {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1)
			again = errors.Is(err, unix.EINTR)
		}
	})
}

package rootless

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// The descriptors of a keeper, besides the lock: one tells it that its ids are mapped, on
// the other it says that it is done.
const (
	goFD   = 3
	doneFD = 4
)

// Keep is the whole life of a keeper, which ends by a signal. As the first process of its
// pid namespace it reaps what tenants have left behind; its end is everybody's there.
func Keep() error {
	start, done := os.NewFile(goFD, "start"), os.NewFile(doneFD, "done")
	if start == nil || done == nil || os.Getpid() != 1 {
		return fmt.Errorf("%s is for the daemon only", KeeperCommand)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	if n, err := start.Read(make([]byte, 1)); n != 1 {
		return fmt.Errorf("whoever started it has gone: %w", err)
	}
	if err := mountProc(); err != nil {
		fmt.Fprintln(done, err)
		return err
	}
	fmt.Fprintln(done, "kept")
	_, _ = start.Close(), done.Close() // nobody is at the other end any more
	for range ended {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if err != nil || pid <= 0 {
				break
			}
		}
	}
	return nil
}

// mountProc shows the processes of this pid namespace, to each its own only.
func mountProc() error {
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "hidepid=invisible"); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

package measure

import (
	"errors"
	"os"
	goruntime "runtime"
	"time"

	"golang.org/x/sys/unix"
)

// ownNetwork marks a process that has a network of its own.
const ownNetwork = "TENEMENT_BENCH_NETWORK"

// OwnNetwork has the program begin again, as the same process, in a network namespace
// with nothing but a loopback interface: what is measured meets no firewall, and nothing
// can reach the machine's network. Without root it does nothing. It must be called
// before anything else.
func OwnNetwork() error {
	if os.Geteuid() != 0 {
		return nil
	}
	if os.Getenv(ownNetwork) != "" {
		return errors.Join(os.Unsetenv(ownNetwork), raiseLoopback())
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Of several threads only the one that executes a program is left, in its namespaces.
	goruntime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	return unix.Exec(self, os.Args, append(os.Environ(), ownNetwork+"=1"))
}

// raiseLoopback sets the flag of netdevice(7) that a new namespace's lo lacks.
func raiseLoopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }() // nothing was sent
	flags, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	flags.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, flags)
}

// Nap waits without the Go scheduler, whose timers are a millisecond coarse when nothing
// else runs.
func Nap(d time.Duration) {
	wait := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&wait, nil) // cut short by a signal: the caller looks again
}

// dropCaches is described in the kernel's Documentation/admin-guide/sysctl/vm.rst.
const dropCaches = "/proc/sys/vm/drop_caches"

// DropCaches empties the page cache of what is clean, so that programs are read from the
// disk again.
func DropCaches() error {
	unix.Sync()
	return os.WriteFile(dropCaches, []byte("3"), 0)
}

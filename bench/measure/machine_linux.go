package measure

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

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

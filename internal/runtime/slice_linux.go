package runtime

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// shortSlice is the shortest that the kernel gives (sched_setattr(2), sched_runtime).
const shortSlice = 100 * time.Microsecond

// ShortenSlices asks the kernel to run each thread of this process sooner, and for less
// long at a time, than others: a request then does not wait for the slices of programs
// that compute, and the process gets no more of the cores than before. What is started
// by this package has the usual slices. Call it once, before there is much to do. Before
// Linux 6.12 it changes nothing.
func ShortenSlices() error {
	const passes = 2 // a thread that was made during the first may be an unchanged one's
	for range passes {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				return err
			}
			if err := setSlice(tid, shortSlice); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("sched_setattr: %w", err)
			}
		}
	}
	return nil
}

// setSlice changes the slice of a thread, 0 being the calling one, and nothing else of
// how it is scheduled. The zero slice is the usual one.
func setSlice(tid int, slice time.Duration) error {
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return err
	}
	attr.Runtime = uint64(slice)
	return unix.SchedSetAttr(tid, attr, 0)
}

// withUsualSlice runs f, whose children have the slices that the kernel gives everybody.
func withUsualSlice(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || attr.Runtime != uint64(shortSlice) {
		return f()
	}
	if err := setSlice(0, 0); err != nil {
		return err
	}
	defer func() { _ = setSlice(0, shortSlice) }() // as it was
	return f()
}

package memory

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"tenement"
)

// trigger has the kernel report that some program has waited for memory for 300 ms
// within 2 s. Whoever is not root may only ask for multiples of 2 s
// (Documentation/accounting/psi.rst, "Monitoring for pressure thresholds").
const trigger = "some 300000 2000000\x00"

// Stalls calls stalled each time that programs have waited long for memory, at most once
// every 2 s and never twice at once, until ctx ends. Meanwhile it costs a thread that the kernel wakes.
// CodeUnavailable: this kernel does not tell.
func Stalls(ctx context.Context, stalled func()) error {
	pressure, err := openTrigger("/proc/pressure/memory")
	if err != nil {
		return &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "watch for programs that wait for memory", Err: err,
			Hint: "boot the kernel with psi=1",
		}
	}
	defer func() { _ = unix.Close(pressure) }()
	ended, end, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = ended.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = end.Close() })
	defer func() {
		if stop() {
			_ = end.Close()
		}
	}()
	return wait(pressure, int(ended.Fd()), stalled)
}

func openTrigger(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", path, err)
	}
	if _, err := unix.Write(fd, []byte(trigger)); err != nil {
		return 0, errors.Join(fmt.Errorf("write to %s: %w", path, err), unix.Close(fd))
	}
	return fd, nil
}

// wait returns once ended can be read or is at its end.
func wait(pressure, ended int, stalled func()) error {
	fds := []unix.PollFd{{Fd: int32(pressure), Events: unix.POLLPRI}, {Fd: int32(ended), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("poll: %w", err)
		case fds[1].Revents != 0:
			return nil
		case fds[0].Revents&unix.POLLERR != 0:
			return errors.New("the kernel has given up /proc/pressure/memory")
		}
		stalled()
	}
}

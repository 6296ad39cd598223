package memory

import (
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"tenement"
)

// TestStallsUntilTheEnd opens a trigger of the kernel's.
func TestStallsUntilTheEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Stalls(ctx, func() {}) }()
	cancel()
	err := <-ended
	if tenement.CodeOf(err) == tenement.CodeUnavailable {
		t.Skipf("%v (%s)", err, tenement.HintOf(err))
	}
	if err != nil {
		t.Error(err)
	}
}

// TestWaitTellsOfEachStall has a socket in the place of the kernel's file.
func TestWaitTellsOfEachStall(t *testing.T) {
	t.Parallel()
	stall, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stall.Close() }()
	// A socket has urgent data as a trigger has an event: POLLPRI.
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = unix.Close(pair[0]), unix.Close(pair[1]) }()
	if err := unix.Send(pair[1], []byte{1}, unix.MSG_OOB); err != nil {
		t.Skipf("%v (a kernel with CONFIG_AF_UNIX_OOB)", err)
	}
	stalls := 0
	err = wait(pair[0], int(stall.Fd()), func() {
		if stalls++; stalls == 3 { // it still stands, as it does while the stall goes on
			_ = end.Close()
		}
	})
	if stalls != 3 || err != nil {
		t.Errorf("%d stalls, %v", stalls, err)
	}
}

func TestTriggerThatTheKernelRefuses(t *testing.T) {
	t.Parallel()
	if _, err := openTrigger("/proc/self/nothing"); err == nil {
		t.Error("no error")
	}
}

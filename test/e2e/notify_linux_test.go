package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tenement/internal/runtime/runtimetest"
)

// said is what a process told the service manager.
type said struct {
	pid  int
	text string
}

// serviceManager listens as systemd does, and knows who speaks.
func serviceManager(t *testing.T) (path string, hears <-chan said) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ten") //nolint:usetesting // t.TempDir's paths are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path = filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	raw, err := conn.SyscallConn()
	if err == nil {
		refused := raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1)
		})
		err = errors.Join(refused, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	messages := make(chan said, 1000)
	go func() {
		for buf, oob := make([]byte, 4096), make([]byte, 1024); ; {
			n, m, _, _, err := conn.ReadMsgUnix(buf, oob)
			if err != nil {
				return
			}
			control, err := syscall.ParseSocketControlMessage(oob[:m])
			if err != nil || len(control) == 0 {
				continue
			}
			if who, err := syscall.ParseUnixCredentials(&control[0]); err == nil {
				messages <- said{int(who.Pid), string(buf[:n])}
			}
		}
	}()
	return path, messages
}

// TestServiceManagerFollowsAnUpgrade: the old daemon names the new one, which then proves
// that it lives, and does not say that the service stops.
func TestServiceManagerFollowsAnUpgrade(t *testing.T) {
	t.Parallel()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	path, hears := serviceManager(t)
	dir := t.TempDir()
	config, wrapper, ten := filepath.Join(dir, "tenement.toml"), filepath.Join(dir, "wrapper"), filepath.Join(root, "bin", "ten")
	script := fmt.Sprintf("#!/bin/sh\nexec env NOTIFY_SOCKET=%s WATCHDOG_USEC=200000 WATCHDOG_PID=$$ %s \"$@\"\n", path, ten)
	err := errors.Join(os.WriteFile(wrapper, []byte(script), 0o700), os.WriteFile(config, []byte(echoing("echo", "")), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	d := startAt(t, wrapper, config, t.TempDir(), "127.0.0.1:0")
	d.ten = ten
	old := d.serving
	var before []said
	hear := func(pid int, text string) {
		for {
			m := runtimetest.Within(t, text, hears)
			before = append(before, m)
			if m.pid == pid && slices.Contains(strings.Split(m.text, "\n"), text) {
				return
			}
		}
	}
	hear(old, "WATCHDOG=1")
	d.upgrade()
	hear(old, fmt.Sprintf("MAINPID=%d", d.serving))
	// systemd waits only for a main process that is its own child when it is told of it.
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.serving))
	if want := fmt.Sprintf("\nPPid:\t%d\n", os.Getpid()); err != nil || !strings.Contains(string(status), want) {
		t.Errorf("the new daemon is no child of the service manager, %v:\n%s", err, status)
	}
	hear(d.serving, "WATCHDOG=1")
	waitGone(t, old)
	hear(d.serving, "WATCHDOG=1")
	for _, m := range before {
		if m.pid == old && strings.Contains(m.text, "STOPPING") {
			t.Errorf("the old daemon said %q", m.text)
		}
	}
}

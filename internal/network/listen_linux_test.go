package network

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenHere(t *testing.T) {
	t.Parallel()
	socket, err := ListenHere(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	conn, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = conn.Control(func(fd uintptr) {
		if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("flags %#x, %v", flags, err)
		}
		if protocol, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || protocol != unix.IPPROTO_TCP {
			t.Errorf("protocol %d, %v", protocol, err)
		}
		if listens, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens != 1 {
			t.Errorf("listens %d, %v", listens, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

package network

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"syscall"
)

// ListenHere gives a socket that listens on a TCP port of 127.0.0.1, in the network
// namespace of the calling thread, for another program to serve on. The caller closes it.
// It blocks, and is one of TCP, not MPTCP: many programs expect both.
func ListenHere(ctx context.Context, port int) (*os.File, error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	l, err := c.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	socket, err := l.(*net.TCPListener).File()
	if err == nil {
		err = syscall.SetNonblock(int(socket.Fd()), false)
	}
	return socket, errors.Join(err, l.Close())
}

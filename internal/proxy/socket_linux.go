package proxy

import "golang.org/x/sys/unix"

// prepare makes what is done with the descriptor once, so that doing it allocates nothing.
//
// A program that writes a response in two pieces (Python's http.server does) has the
// second wait until we have acknowledged the first (Nagle, RFC 896), and on a connection
// that has been used we do so only after 40 ms. So we acknowledge at once; the kernel
// forgets that again and again (tcp(7), TCP_QUICKACK).
func (c *upstreamConn) prepare() {
	c.quickAck = func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) // another kind of socket needs none
	}
	c.peek = func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), c.ahead[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		c.silent = err == unix.EAGAIN
	}
}

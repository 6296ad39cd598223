//go:build !linux

package proxy

import "golang.org/x/sys/unix"

// prepare makes what is done with the descriptor.
func (c *upstreamConn) prepare() {
	c.quickAck = func(uintptr) {}
	c.peek = func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), c.ahead[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		c.silent = err == unix.EAGAIN
	}
}

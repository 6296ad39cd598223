package proxy

import "golang.org/x/sys/unix"

// quickAck has what comes next acknowledged at once.
//
// A program that writes a response in two pieces (Python's http.server does) has the
// second wait until we have acknowledged the first (Nagle, RFC 896), and on a connection
// that has been used we do so only after 40 ms. The kernel forgets this again and again
// (tcp(7), TCP_QUICKACK).
func quickAck(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) // another kind of socket needs none
}

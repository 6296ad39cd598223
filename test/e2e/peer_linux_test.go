package e2e

import "syscall"

// peer is the process at the other end of a connected unix socket; 0 if unknown.
func peer(fd int) int {
	who, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return 0
	}
	return int(who.Pid)
}

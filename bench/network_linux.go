package main

import (
	"errors"
	"os"
	goruntime "runtime"

	"golang.org/x/sys/unix"

	"tenement/internal/network"
)

// networkMark marks a process that has a network of its own.
const networkMark = "TENEMENT_BENCH_NETWORK"

// ownNetwork has the program begin again, as the same process, in a network namespace
// with nothing but a loopback interface: what is measured meets no firewall, and nothing
// can reach the machine's network. Without root it does nothing. It must be called
// before anything else.
func ownNetwork() error {
	if os.Geteuid() != 0 {
		return nil
	}
	if os.Getenv(networkMark) != "" {
		return errors.Join(os.Unsetenv(networkMark), network.LoopbackUp())
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Of several threads only the one that executes a program is left, in its namespaces.
	goruntime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	return unix.Exec(self, os.Args, append(os.Environ(), networkMark+"=1"))
}

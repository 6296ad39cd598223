package runtimetest

import (
	"fmt"
	"os"
	goruntime "runtime"

	"golang.org/x/sys/unix"

	"tenement/internal/network"
	"tenement/internal/rootless"
)

// ownNetwork marks a process that has a network of its own.
const ownNetwork = "TENEMENT_TEST_NETWORK"

// OwnNetwork stands in TestMain after [TenantMain] and [DaemonMain]. As root it has the
// program begin again, as the same process, in a network namespace in which tests may make
// interfaces and rules: the network of the machine is not touched.
func OwnNetwork() {
	if os.Geteuid() != 0 || rootless.Inside() {
		return
	}
	var err error
	if os.Getenv(ownNetwork) == "" {
		err = beginAgain()
	} else {
		err = network.LoopbackUp()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "a network of the tests' own:", err)
		os.Exit(1)
	}
}

// beginAgain does not return unless it fails. The thread that executes a program is the
// only one that is left, and stays in its namespaces.
func beginAgain() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// As a shell may leave a descriptor to a daemon: no tenant is to have it.
	if _, err := unix.Open(self, unix.O_RDONLY, 0); err != nil {
		return err
	}
	goruntime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	return unix.Exec(self, os.Args, append(os.Environ(), ownNetwork+"=1"))
}

package runtimetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownNetwork marks a process that has a network of its own.
const ownNetwork = "TENEMENT_TEST_NETWORK"

// OwnNetwork stands in TestMain after [TenantMain] and [DaemonMain]. As root it runs the
// tests in a network namespace, in which they may make interfaces and rules, and does not
// return: the network of the machine is not touched.
func OwnNetwork() {
	if os.Geteuid() != 0 {
		return
	}
	var err error
	if os.Getenv(ownNetwork) == "" {
		err = runInOwnNetwork()
	} else {
		err = raiseLoopback()
	}
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended):
		os.Exit(ended.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "a network of the tests' own:", err)
		os.Exit(1)
	case os.Getenv(ownNetwork) == "":
		os.Exit(0)
	}
}

func runInOwnNetwork() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	left, err := os.Open(self)
	if err != nil {
		return err
	}
	defer left.Close()
	again := exec.Command(self, os.Args[1:]...)
	again.ExtraFiles = []*os.File{left} // as a shell may leave one to a daemon: no tenant is to have it
	again.Env = append(os.Environ(), ownNetwork+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGQUIT}
	return again.Run()
}

// raiseLoopback sets the flag of netdevice(7) that a new namespace's lo lacks.
func raiseLoopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }() // nothing was sent
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(socket, unix.SIOCGIFFLAGS, request); err != nil {
		return err
	}
	request.SetUint16(request.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}

//go:build !linux

package runtime

import (
	"errors"
	"os"
	"syscall"

	"tenement"
)

func cloneInto(*syscall.SysProcAttr, *os.File) {}

func identify(int) (startTime uint64, boot string) { return 0, "" }

func waitFor(int) func() { return func() {} }

func adopt(tenement.Ref) (func(), error) {
	return nil, errors.New("processes are adopted on Linux only")
}

func signalAdopted(tenement.Ref, os.Signal) error { return os.ErrProcessDone }

//go:build !linux

package daemon

import (
	"os"
	"syscall"
)

func siblingOfManaged() *syscall.SysProcAttr { return nil }

func awaitEnd(*os.Process) {}

//go:build !linux

package runtime

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"tenement"
)

// handle holds one child.
type handle struct {
	pid     int
	process *os.Process
}

func checkHandles() error { return nil }

func keepDescriptors() error { return nil }

func spawn(c command, files []*os.File, attr *syscall.SysProcAttr) (*handle, error) {
	c, err := c.prepared()
	if err != nil {
		return nil, err
	}
	child, err := os.StartProcess(c.path, c.args, &os.ProcAttr{Dir: c.dir, Env: c.env, Files: files, Sys: attr})
	if err != nil {
		return nil, err
	}
	return &handle{pid: child.Pid, process: child}, nil
}

func (h *handle) close() {}

func (h *handle) identify() (startTime uint64, boot string) { return 0, "" }

func (h *handle) signal(sig syscall.Signal) error { return ignoreGone(h.process.Signal(sig)) }

func (h *handle) signalGroup(sig syscall.Signal) error { return syscall.Kill(-h.pid, sig) }

func (h *handle) wait() tenement.Exit {
	state, err := h.process.Wait()
	if err != nil {
		return tenement.Exit{Status: -1}
	}
	return exitOf(state.Sys().(syscall.WaitStatus))
}

func adopt(tenement.Ref) (*handle, error) {
	return nil, &tenement.Error{
		Code: tenement.CodeNotFound, Op: "adopt a process",
		Err: errors.New("processes are adopted on Linux only"),
	}
}

// processGroups are not known here.
func processGroups() (map[int][]int, error) {
	return nil, &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "measure a process",
		Err: errors.New("what a process tree uses is known on Linux only"),
	}
}

// awaitStop does not wait: what a thread does is known on Linux only.
func (h *handle) awaitStop(context.Context) error { return nil }

// stopped matters to adopted processes, and there are none here.
func (h *handle) stopped() bool { return false }

func processorTime([]int) time.Duration { return 0 }

func cloneInto(*syscall.SysProcAttr, *os.File) {}

// BootID is known on Linux only.
func BootID() string { return "" }

//go:build !linux

package rootless

import (
	"errors"
	"os"
	"syscall"
)

var errNotLinux = errors.New("user namespaces are a thing of Linux")

// KeeperCommand is the subcommand of this program that calls [Keep].
const KeeperCommand = "keep-namespaces"

// Namespaces are never had here.
type Namespaces struct {
	Mount, PID *os.File
	UIDs       Range
	Keeper     int
}

// Enter always fails.
func Enter(string) error { return Check() }

// Kept is always false here.
func Kept(string) bool { return false }

// Check is never nil here.
func Check() error { return unavailable(errNotLinux, "use Linux") }

// Keep always fails.
func Keep() error { return errNotLinux }

// Open finds none.
func Open() (*Namespaces, error) { return nil, nil } //nolint:nilnil // there are none

// Close does nothing.
func (n *Namespaces) Close() error { return nil }

// End does nothing.
func (n *Namespaces) End() error { return nil }

// AsUser does nothing.
func (n *Namespaces) AsUser(*syscall.SysProcAttr) {}

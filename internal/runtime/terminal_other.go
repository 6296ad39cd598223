//go:build !linux

package runtime

import (
	"errors"
	"os"
	"syscall"

	"tenement"
)

// Terminal is a pseudo-terminal, which only Linux has here.
type Terminal struct {
	*os.File
	Other *os.File
}

// OpenTerminal fails.
func OpenTerminal(int) (*Terminal, error) {
	return nil, &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "make a terminal", Err: errors.New("terminals are made on Linux only"),
		Hint: "do without one: --no-terminal",
	}
}

// Resize does nothing.
func (t *Terminal) Resize(uint16, uint16) error { return nil }

// Keys are none.
func (t *Terminal) Keys([]byte) []syscall.Signal { return nil }

//go:build !linux

package runtime

import (
	"errors"

	"tenement"
)

// Sandbox is the "sandbox" runtime, which only Linux has.
type Sandbox struct{ Unavailable }

// NewSandbox fails.
func NewSandbox(*Namespace, string) (*Sandbox, error) {
	return nil, &tenement.Error{
		Code: tenement.CodeUnavailable, Op: `isolate with "sandbox"`, Err: errors.New("sandboxes run on Linux only"),
		Hint: `set isolation = "process"`,
	}
}

// RemoveBundles does nothing.
func RemoveBundles(string) error { return nil }

// Sweep does nothing.
func (b *Sandbox) Sweep() error { return nil }

// Close does nothing.
func (b *Sandbox) Close() error { return nil }

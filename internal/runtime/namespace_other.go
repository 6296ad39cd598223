//go:build !linux

package runtime

import (
	"errors"

	"tenement"
	"tenement/internal/network"
)

// Namespace is the "namespace" runtime, which only Linux has.
type Namespace struct{ Unavailable }

// NewNamespace fails.
func NewNamespace(*Host, *network.Pool, string, ...string) (*Namespace, error) {
	return nil, &tenement.Error{
		Code: tenement.CodeUnavailable, Op: `isolate with "namespace"`, Err: errors.New("only Linux has namespaces"),
		Hint: `set isolation = "process"`,
	}
}

// Close does nothing.
func (n *Namespace) Close() error { return nil }

//go:build !linux

package network

import (
	"context"
	"errors"
	"net"

	"tenement"
)

// Pool is of use on Linux only: elsewhere, [Open] makes none.
type Pool struct{}

// Namespace is of use on Linux only.
type Namespace struct{}

func unsupported() error {
	return &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "make a network namespace",
		Err: errors.New("only Linux has them"), Hint: `set isolation = "process"`,
	}
}

// Open fails with CodeUnavailable.
func Open(o Options) (*Pool, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	return nil, unsupported()
}

// Run fails with CodeUnavailable.
func (p *Pool) Run(context.Context) error { return unsupported() }

// Take fails with CodeUnavailable.
func (p *Pool) Take(context.Context, tenement.Egress) (*Namespace, error) { return nil, unsupported() }

// Adopt fails with CodeUnavailable.
func (p *Pool) Adopt(_, _ int) (*Namespace, error) { return nil, unsupported() }

// Sweep fails with CodeUnavailable.
func (p *Pool) Sweep() error { return unsupported() }

// Close does nothing.
func (p *Pool) Close() error { return nil }

// Detach does nothing.
func (p *Pool) Detach() {}

// Enter fails with CodeUnavailable.
func (n *Namespace) Enter() error { return unsupported() }

// Dial fails with CodeUnavailable.
func (n *Namespace) Dial(context.Context, int) (net.Conn, error) { return nil, unsupported() }

// Cookie is 0.
func Cookie() uint64 { return 0 }

// Cookie is 0.
func (n *Namespace) Cookie() uint64 { return 0 }

// Do fails with CodeUnavailable.
func (n *Namespace) Do(func() error) error { return unsupported() }

// Slot is 0.
func (n *Namespace) Slot() int { return 0 }

// Detach does nothing.
func (n *Namespace) Detach() {}

// Close does nothing.
func (n *Namespace) Close() error { return nil }

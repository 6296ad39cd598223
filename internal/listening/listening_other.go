//go:build !linux

// Package listening tells when a program of ours begins to listen on a TCP port, in the
// instant in which it does.
package listening

import (
	"context"
	"errors"
	"log/slog"

	"tenement"
)

// Events are of use on Linux only: elsewhere, [Open] makes none.
type Events struct{}

// Open fails with CodeUnavailable.
func Open(string) (*Events, error) {
	return nil, &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "be told when programs listen", Err: errors.New("only Linux tells"),
	}
}

// Run does nothing.
func (e *Events) Run(context.Context, *slog.Logger) {}

// Await gives a nil channel.
func (e *Events) Await(uint64, int) (began <-chan struct{}, done func()) { return nil, func() {} }

// Close does nothing.
func (e *Events) Close() error { return nil }

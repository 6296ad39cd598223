//go:build !linux

package memory

import (
	"context"
	"errors"

	"tenement"
)

// Stalls is CodeUnavailable: only Linux tells.
func Stalls(context.Context, func()) error {
	return &tenement.Error{Code: tenement.CodeUnavailable, Op: "watch for programs that wait for memory", Err: errors.ErrUnsupported}
}

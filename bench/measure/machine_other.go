//go:build !linux

package measure

import (
	"errors"
	"time"
)

// Nap waits.
func Nap(d time.Duration) { <-time.After(d) }

// DropCaches is an error.
func DropCaches() error { return errors.ErrUnsupported }

//go:build !linux

package measure

import (
	"errors"
	"time"
)

// OwnNetwork is an error: only Linux has what is measured.
func OwnNetwork() error { return errors.ErrUnsupported }

// Nap waits.
func Nap(d time.Duration) { <-time.After(d) }

// DropCaches is an error.
func DropCaches() error { return errors.ErrUnsupported }

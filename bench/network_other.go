//go:build !linux

package main

import "errors"

// ownNetwork is an error: only Linux has what is measured.
func ownNetwork() error { return errors.ErrUnsupported }

//go:build !linux

package runtimetest

// OwnNetwork does nothing: only Linux has what the tests would change.
func OwnNetwork() {}

//go:build !linux

package runtimetest

import "testing"

// adoption is empty: processes are adopted on Linux only.
var adoption []struct {
	name string
	run  func(*testing.T, *bench)
}

// DaemonMain does nothing.
func DaemonMain(map[string]Opener) {}

func kernelBefore(*testing.T, int, int) bool { return false }

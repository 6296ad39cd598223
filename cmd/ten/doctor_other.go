//go:build !linux

package main

// platformChecks are of the kernel that production runs on.
var platformChecks []check

func platformBounds() ([]bound, error) { return nil, nil }

//go:build !linux

package main

// platformChecks are of the kernel that production runs on.
var platformChecks []check

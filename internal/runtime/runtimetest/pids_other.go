//go:build !linux

package runtimetest

import "tenement"

func numberInside(pid int) int { return pid }

func numberOutside(_ tenement.Ref, pid int) int { return pid }

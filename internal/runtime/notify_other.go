//go:build !linux

package runtime

import (
	"errors"

	"tenement"
)

// notices are taken on Linux only.
type notices struct{ said chan Notice }

func openNotices(string) (*notices, error) {
	return nil, &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "hear what a process says of itself",
		Err: errors.New("only Linux has abstract sockets"), Hint: `set ready = "probe"`,
	}
}

func (n *notices) environment() []string { return nil }

func (n *notices) start(func(pid int) bool) {}

func (n *notices) close() {}

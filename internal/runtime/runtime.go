// Package runtime starts a process in one of three degrees of isolation and hands
// back something to dial, wait for, signal, freeze and kill whole.
package runtime

import (
	"context"
	"io"
	"net"
	"os"

	"tenement"
)

// Runtime starts processes. Its methods may be called concurrently.
type Runtime interface {
	// Start runs s and returns once the process exists, ready or not. On an error
	// nothing is left behind. A program that is missing or may not be run is
	// CodeUnavailable with a hint. ctx bounds the call, not the process.
	Start(ctx context.Context, s Spec) (Process, error)

	// Adopt takes over a process that an earlier daemon started. A process that is
	// gone, or a stranger with its pid, is CodeNotFound and is left alone.
	Adopt(ctx context.Context, r tenement.Ref) (Process, error)
}

// Process is one life of an instance. Its methods may be called concurrently.
type Process interface {
	Ref() tenement.Ref

	// Dial connects to the tenant's port.
	Dial(ctx context.Context) (net.Conn, error)

	// Signal goes to the main process alone, Kill to the whole tree. Both are
	// harmless once it has ended.
	Signal(os.Signal) error
	Kill() error

	// Exited is closed when the main process has ended; Exit says how.
	Exited() <-chan struct{}
	Exit() tenement.Exit

	// Release ends the rest of the tree, then frees what the process held (its port,
	// its pipes, its cgroup). Stragglers get SIGTERM and the time until ctx ends, then
	// SIGKILL. Call it once, after Exited. An error says what could not be ended.
	Release(ctx context.Context) error
}

// Spec is everything one start needs.
type Spec struct {
	Instance tenement.InstanceID
	Service  *tenement.Service
	DataDir  string // the instance's own, existing and private
	Stdout   io.Writer
	Stderr   io.Writer
}

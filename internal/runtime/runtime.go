// Package runtime starts a process in one of three degrees of isolation and hands
// back something to dial, wait for, signal, freeze and kill whole.
package runtime

import (
	"context"
	"net"
	"os"
	"time"

	"tenement"
)

// Runtime starts processes. Its methods may be called concurrently.
type Runtime interface {
	// Start runs s and returns once the process exists, ready or not. On an error
	// nothing is left behind. Every limit of the service holds before the program's first
	// instruction. A program that is missing or may not be run, and a limit that cannot
	// be set, is CodeUnavailable with a hint. ctx bounds the call, not the process.
	Start(ctx context.Context, s Spec) (Process, error)

	// Adopt takes over the process r that an earlier daemon started for s. A process
	// that is gone, or a stranger with its pid, is CodeNotFound and is left alone. One
	// that is ours but cannot be served any more (its FIFOs are gone, say) is ended,
	// and CodeUnavailable says why. After any other error (no more descriptors, say) it
	// may still live, and can be adopted later. ctx bounds the wait for an end.
	Adopt(ctx context.Context, s Spec, r tenement.Ref) (Process, error)

	// Run starts the task of s: in the namespaces and the cgroup of within, a process of
	// this runtime, or, if that is nil, in a place like it of its own. Either way it has the
	// user, the limits and the environment of s, and begins in the data directory. Codes as
	// for Start. ctx bounds the call.
	Run(ctx context.Context, s Spec, within Process) (*Job, error)
}

// Process is one life of an instance. Its methods may be called concurrently.
type Process interface {
	Ref() tenement.Ref

	// Dial connects to the tenant's port.
	Dial(ctx context.Context) (net.Conn, error)

	// Listening gives a channel that receives when the program begins to listen on its
	// port, after the call; nil where nobody tells. An event may be lost. Call done when it
	// is of no use any more, and then, not before, again.
	Listening() (began <-chan struct{}, done func())

	// Notices gives what the process says of itself, from its start or adoption on; nil if
	// its service is not asked to. Somebody must take them, until Release or Detach: who
	// speaks waits. It is never closed.
	Notices() <-chan Notice

	// Signal goes to the main process alone, Kill to the whole tree. Both are
	// harmless once it has ended.
	Signal(os.Signal) error
	Kill() error

	// Freeze stops the whole tree where it stands, and returns when it does, within
	// seconds. After an error, which the end of ctx may be, it runs. What is frozen can be
	// killed; a signal reaches it when Thaw lets it go on. Both are harmless once it has
	// ended. One call at a time.
	Freeze(ctx context.Context) error
	Thaw() error

	// Frozen reports whether it is, or is about to be, whichever daemon has done that.
	Frozen() bool

	// Usage is what the whole tree uses now.
	Usage() (tenement.Usage, error)

	// Exited is closed when the main process has ended; Exit says how.
	Exited() <-chan struct{}
	Exit() tenement.Exit

	// Release ends the rest of the tree, then frees what the process held (its port,
	// its FIFOs, its cgroup). Stragglers get SIGTERM and the time until ctx ends, then
	// SIGKILL. Call it once, after Exited. An error says what could not be ended.
	Release(ctx context.Context) error

	// Detach lets the process live on for another daemon, which may adopt it from then
	// on. It returns when the sinks are not used any more; output that they have not
	// taken waits for the next. Call it instead of Release; afterwards only Ref, Dial,
	// Exited and Exit are of use.
	Detach()
}

// Notice is what a process says of itself (sd_notify(3)).
type Notice struct {
	Ready    bool          // READY=1: it serves
	Stopping bool          // STOPPING=1: it ends by itself
	Extend   time.Duration // EXTEND_TIMEOUT_USEC: it wants so long from now to start or to stop; 0 to 24 h
}

// Spec is everything one start needs.
type Spec struct {
	Instance tenement.InstanceID
	Service  *tenement.Service
	DataDir  string                     // the instance's own, existing and private
	UID      int                        // of the process, its group's too; 0 = the daemon's own user
	Secrets  map[string]tenement.Secret // further variables, by name; they come before the service's
	Stdout   Sink                       // nil drops it
	Stderr   Sink

	// Heed answers what the process asks of us on connections of l, and returns when l is
	// closed, which Release and Detach wait for. Only processes of the tree are let in. The
	// process finds the socket's name in its environment, but not in a sandbox, nor if its
	// service says otherwise, nor elsewhere than on Linux. Nil: it may ask nothing.
	Heed func(l net.Listener)

	Task *Task // for Run alone; otherwise nil
}

// Sink takes what a process prints on one stream. Calls for one stream come one after
// the other.
type Sink interface {
	// Take is offered the oldest output that was not taken yet. Before it returns it
	// calls remove, once, with how many of its bytes need not be offered again: they are
	// kept, or were dropped on purpose; it does not call it if that is none. From then on
	// the offer is not valid. What is left is offered again, with what was printed
	// since, at the latest after a restart of the daemon. So is, once more, what was
	// kept when a daemon was killed before it was removed: every byte is offered at
	// least once, and whoever is to see it only once is shown it after remove has
	// returned. Take removes at least one byte of an offer of MaxOffer bytes, and all of
	// the last offer, after which comes nothing. Remove may be called by any goroutine.
	//
	// Pressing says that the process may soon have to wait until something is taken.
	// Otherwise there is room for a fifth of a second of half a megabyte a second.
	Take(offer []byte, pressing, last bool, remove func(bytes int))
}

// MaxOffer is the most that a [Sink] is offered at once, in bytes.
const MaxOffer = 64 << 10

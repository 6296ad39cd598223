package tenement

import (
	"context"
	"time"
)

// Cause is why an instance was woken.
type Cause string

// The causes of wakes.
const (
	CauseRequest  Cause = "request"
	CauseOperator Cause = "operator" // a command of ten, or the management API
	CauseSchedule Cause = "schedule" // an alarm or a cron line
	CausePinned   Cause = "pinned"   // the configuration keeps it awake
	CauseRestart  Cause = "restart"  // its process has ended and is to run again; nobody waited
)

// Asker is who wants a lease on an instance. It travels with the context, and is not
// used by two calls at once.
type Asker struct {
	Cause  Cause
	Client string // of a request: the class of its client's address: loopback, private or public
	Agent  string // of a request: its User-Agent
	Path   string // of a request, decoded, without query

	// Wake is set, before the lease is given, to the wake that it was waited for; nil if
	// there was a process already. It is not changed any more.
	Wake *WakeRecord
}

type askerKey struct{}

// WithAsker says on whose behalf leases are asked for with the context.
func WithAsker(ctx context.Context, a *Asker) context.Context {
	return context.WithValue(ctx, askerKey{}, a)
}

// AskerOf is who was named with [WithAsker]; otherwise a new one, of an operator. It is
// never nil.
func AskerOf(ctx context.Context) *Asker {
	if a, ok := ctx.Value(askerKey{}).(*Asker); ok {
		return a
	}
	return &Asker{Cause: CauseOperator}
}

// WakeRecord is one wake: who asked for it, how long each phase took, and what came of it.
// A phase that was not reached is 0.
type WakeRecord struct {
	ID       int64 // rises with every wake that is kept; 0 = not kept yet
	Instance InstanceID
	At       time.Time // it was asked for

	// Of the first who asked; all but Cause are empty unless that was a request.
	Cause               Cause
	Client, Agent, Path string

	Queue     time.Duration // until it was its turn, the end of a process before included
	Spawn     time.Duration // until there was a process
	Ready     time.Duration // until that was ready
	FirstByte time.Duration // from then until the first byte of the first response

	Outcome string // "ok", or the code of the error
	Shared  int    // requests that waited for it
}

// WakeOK is the outcome of a wake that led to a process that is ready.
const WakeOK = "ok"

// WakeQuery selects records of wakes. Empty fields select all.
type WakeQuery struct {
	Instance InstanceID
	Tenant   string // only instances of this name
	Since    time.Time
	Before   int64 // only records with a lower id
	Limit    int   // the last so many
}

package runtime

import (
	"context"

	"tenement"
)

// Unavailable is the runtime of a degree of isolation that this machine does not offer:
// everything fails with Err. Nothing takes its place.
type Unavailable struct{ Err error }

// Start implements [Runtime].
func (u Unavailable) Start(context.Context, Spec) (Process, error) { return nil, u.Err }

// Run implements [Runtime].
func (u Unavailable) Run(context.Context, Spec, Process) (*Job, error) { return nil, u.Err }

// Adopt implements [Runtime].
func (u Unavailable) Adopt(context.Context, Spec, tenement.Ref) (Process, error) { return nil, u.Err }

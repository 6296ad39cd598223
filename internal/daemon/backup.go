package daemon

import (
	"context"
	"log/slog"
	"time"

	"tenement"
)

const (
	// firstCopy is how long a start is left alone: the machine has better things to do.
	firstCopy = time.Minute
	// copyInterval is how often the copy of the day is asked for: often enough for each
	// day to have one, clocks that jump and disks that were full included.
	copyInterval = time.Hour
)

// copier keeps a copy of the registry for each day, and says when the registry is damaged.
type copier struct {
	backUp func(ctx context.Context, now time.Time) (path string, err error) // "" when the day has one
	check  func(context.Context) error
	log    *slog.Logger
}

// keepCopies returns when ctx ends; no copy is worth the end of the daemon.
func (t *tenancy) keepCopies(ctx context.Context) {
	copier{t.store.BackUp, t.store.Check, t.daemon.Log}.run(ctx)
}

func (c copier) run(ctx context.Context) {
	timer := time.NewTimer(firstCopy)
	defer timer.Stop()
	for checked := false; ; checked = true {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		c.once(ctx, checked)
		timer.Reset(copyInterval)
	}
}

// once makes the copy of the day if there is none, which looks at every page; if there
// is one, a daemon that has just started does so anyway.
func (c copier) once(ctx context.Context, checked bool) {
	path, err := c.backUp(ctx, time.Now())
	if path == "" && err == nil && !checked {
		err = c.check(ctx)
	}
	switch {
	case err == nil && path != "":
		c.log.Info("copied the registry", "to", path)
	case err == nil, ctx.Err() != nil: // cut off by the end of the daemon
	default:
		c.log.Error("the registry is damaged or cannot be copied", "error", err, "hint", tenement.HintOf(err), "again_in", copyInterval)
	}
}

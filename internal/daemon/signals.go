package daemon

import (
	"context"
	"os"
	"syscall"

	"tenement"
)

// changeSignals are those that followSignals knows.
var changeSignals = []os.Signal{syscall.SIGHUP, syscall.SIGUSR2}

// followSignals reloads on SIGHUP and upgrades on SIGUSR2, until ctx ends: a daemon that
// was upgraded, and serves out what it has begun, must not die of them. What comes of it
// is in the log.
func (d *daemon) followSignals(ctx context.Context, signals <-chan os.Signal) {
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			if s == syscall.SIGUSR2 {
				_, err = d.upgrade(ctx)
			} else {
				_, err = d.tenancy.Load().backend.Reload(ctx, false)
			}
		}
		if err != nil {
			d.Log.Error("asked for by a signal", "error", err, "hint", tenement.HintOf(err))
		}
	}
}

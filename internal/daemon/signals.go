package daemon

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"tenement"
)

// followSignals reloads on SIGHUP and upgrades on SIGUSR2, until ctx ends. What comes
// of it is in the log.
func (d *daemon) followSignals(ctx context.Context) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2)
	defer signal.Stop(signals)
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-d.upgraded:
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

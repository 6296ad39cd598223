package supervisor

import (
	"context"
	"fmt"

	"tenement"
)

// What had no traffic for freeze_timeout is frozen: it takes no more leases and its process
// stands still in memory, until a request lets it go on or idle_timeout ends it.
//
// The state says how the process is to be, and turn makes it so, by one call at a time. The
// call may last: a thread in the kernel's hands holds a freeze up. So it has a goroutine for
// itself, a freeze that is not wanted any more is called off, and the owner waits for neither.

// frost is how a process stands; the owner's.
type frost struct {
	still   bool               // it is frozen, so far as the calls that have ended say
	callOff context.CancelFunc // of the call under way, which makes it the other way; nil: there is none
	failed  bool               // it could not be frozen, and is not tried to be again
}

// mayFreeze reports whether want of traffic leads to a freeze, and not yet to sleep.
func (i *instance) mayFreeze() bool {
	o := &i.own
	return i.service.Timeouts.Freeze > 0 && o.state == tenement.Ready && !o.life.frost.failed
}

// freeze pauses an idle instance. A connection that nobody uses would not outlive the
// pause: the program's own clock closes it the moment it goes on, under the next request.
func (i *instance) freeze() {
	o := &i.own
	if o.health.asking {
		return // the verdict sets the timer
	}
	if !o.life.gate.closeIfIdle() {
		i.armIdle()
		return
	}
	o.life.transport.CloseIdleConnections()
	i.step(tenement.Freeze)
	i.turn()
	i.armIdle()
}

// thaw lets a frozen instance go on for somebody who waits. Leases are given once it runs.
func (i *instance) thaw() {
	i.step(tenement.Wake)
	i.turn()
}

// turn has the process stand still or run, as the state asks, unless it does.
//
//nolint:contextcheck,nolintlint // the call outlives whoever has caused it; the linter reports their callers
func (i *instance) turn() {
	l := i.own.life
	f := &l.frost
	right := f.still == (i.own.state == tenement.Frozen)
	switch {
	case f.callOff != nil && right:
		f.callOff()
	case f.callOff == nil && !right:
		ctx, cancel := context.WithCancel(l.hurry)
		f.callOff = cancel
		go l.turn(ctx, !f.still)
	}
}

func (l *life) turn(ctx context.Context, still bool) {
	if still {
		l.turned <- l.process.Freeze(ctx)
	} else {
		l.turned <- l.process.Thaw()
	}
}

// finishTurn waits for the call under way, if there is one: another daemon is to find the
// process as it stays.
func (l *life) finishTurn() {
	if callOff := l.frost.callOff; callOff != nil {
		callOff()
		<-l.turned //nolint:errcheck // the process knows what came of it
	}
}

// onTurned: the process was frozen or thawed, or could not be.
func (i *instance) onTurned(err error) {
	o, l := &i.own, i.own.life
	f := &l.frost
	f.callOff()
	f.callOff = nil
	switch {
	case l.hasExited():
		return // its end is being reported
	case err == nil:
		f.still = !f.still
	case f.still:
		i.cannotThaw(err)
		return
	case o.state == tenement.Frozen: // nobody has called it off
		i.cannotFreeze(err)
	}
	i.turn() // the state may have changed meanwhile
	if f.callOff == nil && o.state == tenement.Ready {
		i.reopen()
	}
}

// reopen goes on where freeze stopped.
func (i *instance) reopen() {
	o := &i.own
	o.life.gate.reopen()
	i.serveWaiters()
	if i.service.Health.Path != "" && !o.health.asking {
		o.health.timer.Reset(i.service.Health.Interval)
	}
	if o.storage.due {
		o.storage.due = false
		o.storage.timer.Reset(storagePace)
	}
	i.armIdle()
}

// cannotFreeze has an instance go on as if it was never to be frozen, until its next start.
func (i *instance) cannotFreeze(err error) {
	i.note("it cannot be frozen, and goes on: %v", err)
	i.own.life.frost.failed = true
	i.step(tenement.Wake)
}

// cannotThaw ends what would stand still for ever.
func (i *instance) cannotThaw(err error) {
	switch i.own.state {
	case tenement.Ready:
		i.misbehaved(fmt.Errorf("it was frozen and does not go on: %w", err))
		i.kill()
	case tenement.Stopping:
		i.kill()
	}
}

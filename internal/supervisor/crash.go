package supervisor

import (
	"errors"
	"fmt"
	"time"

	"tenement"
)

// afterCrash decides what the unasked end of a process means. The instance is in
// Backoff.
func (i *instance) afterCrash(ended *life) {
	o := &i.own
	exit := ended.process.Exit()
	ending := i.ending(exit)
	o.hasServed = ended.wasReady
	switch {
	case o.unrecorded != nil:
		i.postpone(o.unrecorded)
	case o.goal == tenement.GoalBackoff: // we ended it for a fault, and said so to those who waited
		i.crashed(errors.New(o.record.reason))
	case !ended.wasReady:
		i.startFailed(fmt.Errorf("%s before it was ready", ending))
	case exit.Failed() || i.service.Restart.Mode == tenement.RestartAlways:
		i.crashed(errors.New(ending))
	default: // it ended in good order: started again only for those who wait
		i.note("%s", ending)
		o.revive = false
		i.retry()
	}
}

// ending is how a process ended, for operators and for the instance's own people.
func (i *instance) ending(exit tenement.Exit) string {
	if limit := i.service.Limits.Memory; exit.OOM && limit > 0 {
		return fmt.Sprintf("%s (memory_limit_mb = %d)", exit, limit>>20)
	}
	return exit.String()
}

// countOOMKill accounts for an end because memory was short, whether or not it was to
// end anyway.
func (i *instance) countOOMKill() {
	r := &i.own.record
	if !r.registered {
		return
	}
	r.oomKills++
	i.trouble(tenement.AlertOOM, i.ending(tenement.Exit{OOM: true}))
	if err := i.sup.Store.CountOOMKill(i.sup.lives, i.id); err != nil {
		i.sup.unwritten("count an end", i.id, err)
	}
}

// startFailed reports a start that came to nothing to all who waited for it, and who
// may ask for the reason in the next instant.
func (i *instance) startFailed(err error) {
	i.own.record.reason = err.Error()
	i.publish()
	i.failWaiters(i.unavailable(err, i.nextDelay()))
	i.crashed(err)
}

// nextDelay is the back-off after one more crash.
func (i *instance) nextDelay() time.Duration {
	policy := i.service.Restart
	count := i.own.record.recentCrashes(policy.Window) + 1
	if count > policy.Max {
		count++ // giving up comes with a wait in any case
	}
	return policy.Delay(count)
}

// loopBegins is which crash within the restart window makes a crash loop of them, unless
// the budget is spent by then. The next loop begins when all of them are forgotten.
const loopBegins = 2

// crashed accounts for a crash: the next start comes after the back-off, or, with
// the budget spent, when somebody asks after it.
func (i *instance) crashed(err error) {
	o := &i.own
	delay := i.nextDelay()
	count := o.record.addCrash(i.service.Restart.Window)
	o.record.retryAt = time.Now().Add(delay)
	o.record.reason = err.Error()
	i.saveFailure()
	if count > i.service.Restart.Max {
		i.note("%v; crash %d within %s: failed, no start for %s", err, count, i.service.Restart.Window, delay)
		i.trouble(tenement.AlertFailed, fmt.Sprintf("%v; crash %d within %s", err, count, i.service.Restart.Window))
		i.step(tenement.Deadline)
		i.failWaiters(i.unavailable(err, delay))
		i.settle()
		return
	}
	i.note("%v", err)
	if count == loopBegins {
		i.trouble(tenement.AlertCrashLoop, fmt.Sprintf("%v; crash %d within %s", err, count, i.service.Restart.Window))
	}
	i.publish()
	if delay == 0 || i.hurries() {
		i.retry()
		return
	}
	o.timer.Reset(delay)
}

// trouble tells whoever tells the operator.
func (i *instance) trouble(what tenement.AlertKind, text string) {
	if told := i.sup.Observer.Troubled; told != nil {
		told(i.id, what, text)
	}
}

// hurries reports whether a request waits for a program that has been up before. It
// is not made to sit out the back-off: the restart budget bounds what a program that
// crashes again and again can cost.
func (i *instance) hurries() bool { return i.own.hasServed && i.wanted() }

// retry ends the back-off: with a start if it is to run or somebody waits, else asleep.
func (i *instance) retry() {
	if i.own.stopping || !i.own.revive && !i.wanted() {
		i.step(tenement.Sleep)
		i.settle()
		return
	}
	i.begin(tenement.Retry)
}

package supervisor

import (
	"context"
	"errors"
	"runtime"
	"time"

	"tenement"
	"tenement/internal/disk"
	"tenement/internal/logs"
	tenruntime "tenement/internal/runtime"
)

// logLevel is where our own remarks about an instance go.
const logLevel = logs.Stderr

// slotTime bounds how long one start counts against max_starting. A program that
// takes longer to come up mostly waits, and must not keep others from starting.
const slotTime = 500 * time.Millisecond

// begin puts a start into the admission queue.
func (i *instance) begin(t tenement.Trigger) {
	i.own.goal = tenement.GoalRun
	i.step(t)
	i.queue()
}

// start runs with the admission slot just obtained.
func (i *instance) start() {
	i.own.ticket.expireAfter(slotTime)
	i.own.waking.endPhase(queuePhase)
	i.own.storage.full, i.own.storage.due = nil, false
	l, how, err := i.launch()
	if err != nil {
		i.launchFailed(err)
		return
	}
	i.own.unrecorded = nil
	i.own.life = l
	i.noteStarted()
	i.watchStorage(how)
	go l.watch()
	l.probe(i.service.Timeouts.Startup, i.urgent)
	i.publish()
	// Written while the program boots, and before it may serve.
	if err := i.keepProcess(); err != nil {
		i.unrecorded(err)
	}
}

func (i *instance) launchFailed(err error) {
	i.blame(err)
	i.leaveQueue()
	i.leaveRoom()
	i.step(tenement.Exited)
	i.own.hasServed = false
	var full *tenement.Error
	switch {
	case errors.As(err, &full) && full.Code == tenement.CodeStorageFull:
		i.refuseForStorage(full)
	case fromDisk(err) || i.sup.Store.Refused() != nil:
		i.postpone(err)
	default:
		i.startFailed(err)
	}
}

// launch makes the process, or an error and nothing left behind. It says how what the
// process stores is bounded.
func (i *instance) launch() (*life, disk.Enforcement, error) {
	if err := i.sup.Store.Refused(); err != nil {
		return nil, "", err
	}
	secrets, err := i.takeRecipe()
	if err != nil {
		return nil, "", err
	}
	rt := i.sup.Runtimes[i.service.Isolation]
	if rt == nil {
		return nil, "", i.unavailableIsolation()
	}
	if missing, ok := rt.(tenruntime.Unavailable); ok { // then nothing changes hands for it
		return nil, "", missing.Err
	}
	spec := i.sup.spec(i.id)
	spec.Service, spec.Secrets = i.service, secrets
	how, err := i.prepareStorage(&spec)
	if err != nil {
		return nil, how, err
	}
	p, err := rt.Start(i.sup.lives, spec)
	if err != nil {
		return nil, how, err
	}
	return newLife(i, p), how, nil
}

// takeRecipe has the next process made as the configuration and the instance's own
// settings are now.
func (i *instance) takeRecipe() (map[string]tenement.Secret, error) {
	if s := i.sup.service(i.id); s != nil { // a removed service: whoever removed it ends what runs
		i.service, i.base = s, s
	}
	own, secrets, err := i.sup.recipe(i.sup.lives, i.id, i.base)
	if err == nil {
		i.service = own
	}
	return secrets, err
}

func (s *Supervisor) recipe(ctx context.Context, id tenement.InstanceID, base *tenement.Service) (*tenement.Service, map[string]tenement.Secret, error) {
	if s.Recipe == nil {
		return base, nil, nil
	}
	return s.Recipe(ctx, id, base)
}

// onProbe takes the verdict on a starting process. One that has exited meanwhile is
// dealt with when its end is reported.
func (i *instance) onProbe(err error) {
	o := &i.own
	if o.state != tenement.Starting || o.life.hasExited() {
		return
	}
	if err != nil {
		i.misbehaved(&tenement.Error{
			Code: tenement.CodeUnavailable, Op: "start " + i.id.String(),
			Err:  errors.New("not ready within " + i.service.Timeouts.Startup.String() + ": " + err.Error()),
			Hint: "raise startup_timeout, or see what it printed: ten logs " + i.id.String(),
		})
		return
	}
	i.leaveQueue()
	o.record.reason, o.record.evicted = "", false
	o.life.gate.touch()
	i.serve()
	i.isWell()
	i.watchHealth()
	i.step(tenement.IsReady)
	i.serveWaiters()
	o.woken = nil
	i.armIdle()
	runtime.Gosched() // to those who waited: nobody waits for this
	i.noteProcess()
}

// serve lets leases be had.
func (i *instance) serve() {
	i.own.life.wasReady = true
	i.own.revive = i.service.Restart.Mode != tenement.RestartNever
	i.serving.Store(i.own.life)
}

// misbehaved ends a process for a fault, with the same consequences as a crash.
func (i *instance) misbehaved(err error) {
	o := &i.own
	o.record.reason = err.Error()
	i.blame(err)
	i.publish()
	i.failWaiters(i.unavailable(err, i.nextDelay()))
	o.goal = tenement.GoalBackoff
	i.terminate()
}

// armIdle sets the timer to the earliest instant at which the instance can have
// been idle for long enough.
func (i *instance) armIdle() {
	limit := i.service.Timeouts.Idle
	if i.mayFreeze() {
		limit = i.service.Timeouts.Freeze
	}
	if limit == 0 || i.sup.plan.Load().pins(i.id) {
		i.own.timer.Stop()
		return
	}
	i.own.timer.Reset(max(limit-i.own.life.gate.idle(), time.Millisecond))
}

// rest follows upon a time without traffic.
func (i *instance) rest() {
	idle, limits := i.own.life.gate.idle(), i.service.Timeouts
	switch {
	case limits.Idle > 0 && idle >= limits.Idle:
		i.sleepIfIdle()
	case i.mayFreeze() && idle >= limits.Freeze:
		i.freeze()
	default:
		i.armIdle()
	}
}

func (i *instance) sleepIfIdle() {
	o := &i.own
	if i.sup.Store.Refused() != nil { // it could not be woken
		o.timer.Reset(diskPause)
		return
	}
	if o.state == tenement.Frozen {
		i.stop(tenement.GoalIdle, nil)
		return
	}
	if o.life.gate.idle() < i.service.Timeouts.Idle || !o.life.gate.closeIfIdle() {
		i.armIdle()
		return
	}
	o.goal = tenement.GoalIdle
	i.step(tenement.Sleep)
	select {
	case do := <-i.inbox: // a request that came in this very instant calls it back
		do()
	default:
	}
	// The gate has said that it is drained: onDrained follows unless called back.
}

// callBack returns an instance that was going to sleep for want of traffic.
func (i *instance) callBack() {
	o := &i.own
	if o.life.hasExited() {
		return // its end is being reported
	}
	o.life.gate.reopen()
	i.step(tenement.Wake)
	o.goal = tenement.GoalRun
	i.serveWaiters()
	i.armIdle()
}

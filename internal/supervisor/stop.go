package supervisor

import (
	"syscall"
	"time"

	"tenement"
	"tenement/internal/fault"
)

// stop ends the instance towards goal; done is told when no process is left.
func (i *instance) stop(goal tenement.Goal, done chan<- error) {
	o := &i.own
	if done != nil {
		o.enders = append(o.enders, done)
	}
	trigger := tenement.Sleep
	if goal == tenement.GoalSuspend {
		trigger = tenement.Suspend
	}
	switch o.state {
	case tenement.Starting:
		o.goal = goal
		if o.life == nil { // still queueing
			i.leaveQueue()
			i.leaveRoom()
			i.step(trigger)
			i.step(tenement.Exited)
			i.settle()
			return
		}
		i.terminate()
	case tenement.Ready:
		o.goal = goal
		i.endBusy()
		o.life.gate.close()
		i.step(trigger)
		o.timer.Reset(i.service.Timeouts.Drain)
	case tenement.Frozen:
		o.goal = goal
		i.step(trigger)
		i.terminate()
	case tenement.Draining, tenement.Stopping:
		o.goal = goal
	case tenement.Asleep:
		if goal == tenement.GoalSuspend {
			i.step(trigger)
		}
		i.settle()
	default: // no process: backoff, failed, suspended
		if o.state != tenement.Suspended || goal != tenement.GoalSuspend {
			i.step(trigger)
		}
		o.record.forgive()
		i.settle()
	}
}

// stopForGood is the daemon's own end.
func (i *instance) stopForGood() {
	i.own.stopping = true
	i.failWaiters(i.refusal())
	switch i.own.state {
	case tenement.Asleep, tenement.Suspended, tenement.Failed:
		return
	}
	i.stop(i.goalAtRest(), nil)
}

// onDrained: the last lease of a closed gate was returned.
func (i *instance) onDrained() {
	if i.own.state == tenement.Draining {
		i.terminate()
	}
}

// terminate tells the main process to end and gives it, and then what is left of
// its tree, stop_timeout to do so.
func (i *instance) terminate() {
	o := &i.own
	i.leaveQueue()
	i.stopHealth()
	o.life.gate.close()
	o.life.transport.CloseIdleConnections()
	o.life.told.Store(true)
	i.step(tenement.Deadline)
	i.turn() // what is frozen hears SIGTERM when it goes on
	i.noteProcess()
	limit := i.service.Timeouts.Stop
	if limit == 0 {
		i.kill()
		return
	}
	if !o.life.notify.stopping { // a second wish to end would make some programs end at once
		if err := o.life.process.Signal(syscall.SIGTERM); err != nil {
			i.sup.Log.Error("send SIGTERM", "instance", i.id, "error", err)
		}
	}
	fault.Point(fault.Told)
	o.life.notify.term = newTerm(limit)
	o.timer.Reset(limit)
}

// killAgain is the pace of further SIGKILLs. One is enough, unless the kernel has
// refused it.
const killAgain = time.Second

func (i *instance) kill() {
	o := &i.own
	i.step(tenement.Deadline)
	o.life.hurryUp()
	if err := o.life.process.Kill(); err != nil && !o.life.hasExited() {
		i.sup.Log.Error("kill", "instance", i.id, "error", err)
	}
	o.timer.Reset(killAgain)
}

// onEnded: the process and its whole tree are gone.
func (i *instance) onEnded(err error) {
	o := &i.own
	if err != nil {
		i.sup.Log.Error("end of a process", "instance", i.id, "error", err)
	}
	i.serving.Store(nil)
	i.leaveQueue()
	i.stopHealth()
	o.storage.timer.Stop()
	o.timer.Stop()
	fault.Point(fault.Gone)
	i.forgetProcess()
	fault.Point(fault.Forgotten)
	i.saveHealthyAt()
	ended := o.life
	o.life = nil
	i.leaveRoom()
	if ended.process.Exit().OOM {
		i.countOOMKill()
	}
	i.step(tenement.Exited)
	i.noteEnded(ended)
	if o.state == tenement.Backoff {
		i.afterCrash(ended)
		return
	}
	i.settle()
}

// settle does what is left to do once a process is gone: those who waited for that
// are told, and those who wait for the next one get it.
func (i *instance) settle() {
	o := &i.own
	o.timer.Stop()
	err := i.tidy()
	if o.removal != nil && err == nil {
		err = i.unregister()
	}
	for _, done := range o.enders {
		done <- err
	}
	o.enders = nil
	switch {
	case o.state == tenement.Starting: // a restart: queued
		o.goal = tenement.GoalRun
		i.queue()
	case len(o.waiters) == 0:
	case o.state == tenement.Asleep && o.record.registered && !o.stopping:
		if i.wanted() {
			i.begin(tenement.Wake)
		}
	default:
		if err := i.refusal(); err != nil {
			i.failWaiters(err)
		}
	}
}

// tidy writes down what the registry must know of an instance without a process, and
// empties a data directory that is not to be kept.
func (i *instance) tidy() error {
	o := &i.own
	i.saveFailure()
	if i.service.Persist || o.state == tenement.Starting {
		return nil
	}
	if err := i.sup.Disk.Empty(i.id); err != nil {
		i.sup.Log.Error("empty data directory", "instance", i.id, "error", err)
		return err
	}
	return nil
}

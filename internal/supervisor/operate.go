package supervisor

import (
	"context"
	"errors"
	"time"

	"tenement"
	"tenement/internal/fault"
	"tenement/internal/probe"
)

// operate has id's owner do something and waits for the answer.
func (s *Supervisor) operate(ctx context.Context, id tenement.InstanceID, do func(i *instance, answer chan<- error)) error {
	if s.service(id) == nil {
		return Unknown(id)
	}
	i, err := s.summon(id)
	if err != nil {
		return err
	}
	defer i.dismiss()
	return i.ask(ctx, func(answer chan<- error) { do(i, answer) })
}

// ifRegistered guards an operation that needs a row in the registry.
func ifRegistered(do func(i *instance, answer chan<- error)) func(*instance, chan<- error) {
	return func(i *instance, answer chan<- error) {
		switch r := &i.own.record; {
		case r.broken != nil:
			answer <- r.broken
		case !r.registered || i.own.removal != nil:
			answer <- Unknown(i.id)
		default:
			do(i, answer)
		}
	}
}

// Register enters id into the registry; created is false if it was there already.
func (s *Supervisor) Register(ctx context.Context, id tenement.InstanceID) (created bool, err error) {
	err = s.operate(ctx, id, func(i *instance, answer chan<- error) {
		switch r := &i.own.record; {
		case r.broken != nil:
			answer <- r.broken
		case i.own.removal != nil:
			answer <- &tenement.Error{Code: tenement.CodeConflict, Op: "register " + id.String(), Err: errors.New("it is being deleted")}
		case r.registered:
			answer <- nil
		default:
			created = true
			answer <- i.register()
		}
	})
	return created, err
}

func (i *instance) register() error {
	now := time.Now()
	if _, err := i.sup.Store.Register(i.sup.lives, i.id, now); err != nil {
		return err
	}
	fault.Point(fault.Registered)
	i.own.record = record{registered: true, createdAt: now}
	i.publish()
	return nil
}

func (i *instance) registerOnRequest() error {
	if i.service.Create != tenement.CreateOnRequest {
		return Unknown(i.id)
	}
	return i.register()
}

// Start wakes id and waits until it is ready. Starts that a request waits for come
// first. Codes as for [Supervisor.Acquire].
func (s *Supervisor) Start(ctx context.Context, id tenement.InstanceID) error {
	lease, err := s.AcquireLater(ctx, id)
	if err != nil {
		return err
	}
	lease.Release()
	return nil
}

// Stop puts id to sleep and waits until its process is gone: requests under way have
// drain_timeout, the process stop_timeout. A request that comes meanwhile is held and
// wakes it again. What had failed is forgiven. Stopping what sleeps is no error.
func (s *Supervisor) Stop(ctx context.Context, id tenement.InstanceID) error {
	return s.operate(ctx, id, ifRegistered(func(i *instance, answer chan<- error) {
		if i.own.record.suspended {
			answer <- nil
			return
		}
		i.stop(tenement.GoalSleep, answer)
	}))
}

// Restart ends id's process in good order, if it has one, and waits until its next
// one is ready. Crashes are forgiven.
func (s *Supervisor) Restart(ctx context.Context, id tenement.InstanceID) error {
	stop := ifRegistered(func(i *instance, answer chan<- error) {
		if i.own.record.suspended {
			answer <- suspended(id)
			return
		}
		if err := i.refusedByDisk(); err != nil {
			answer <- err // and keep what runs
			return
		}
		i.own.record.forgive()
		if i.own.state.HasProcess() {
			i.stop(tenement.GoalRestart, answer)
			return
		}
		i.stop(tenement.GoalSleep, answer)
	})
	if err := s.operate(ctx, id, stop); err != nil {
		return err
	}
	return s.Start(ctx, id)
}

// Suspend switches id off until Resume, also across restarts of the daemon, and
// waits until its process is gone.
func (s *Supervisor) Suspend(ctx context.Context, id tenement.InstanceID) error {
	return s.operate(ctx, id, ifRegistered(func(i *instance, answer chan<- error) {
		if err := i.setSuspended(true); err != nil {
			answer <- err
			return
		}
		fault.Point(fault.SwitchedOff)
		i.failWaiters(suspended(id))
		i.stop(tenement.GoalSuspend, answer)
	}))
}

// Resume undoes Suspend: the next request wakes id.
func (s *Supervisor) Resume(ctx context.Context, id tenement.InstanceID) error {
	return s.operate(ctx, id, ifRegistered(func(i *instance, answer chan<- error) {
		if err := i.setSuspended(false); err != nil {
			answer <- err
			return
		}
		if o := &i.own; o.state == tenement.Suspended {
			i.step(tenement.Sleep)
		} else if o.goal == tenement.GoalSuspend {
			o.goal = tenement.GoalSleep
		}
		answer <- nil
	}))
}

func (i *instance) setSuspended(on bool) error {
	if err := i.sup.Store.SetSuspended(i.sup.lives, i.id, on); err != nil {
		return err
	}
	i.own.record.suspended = on
	return nil
}

// removal is a deletion under way.
type removal struct{ purge bool }

// Delete ends id's process in good order and takes id out of the registry; purge
// removes its data directory too.
func (s *Supervisor) Delete(ctx context.Context, id tenement.InstanceID, purge bool) error {
	return s.operate(ctx, id, ifRegistered(func(i *instance, answer chan<- error) {
		if i.tasks.Load() > 0 {
			answer <- &tenement.Error{
				Code: tenement.CodeConflict, Op: "delete " + id.String(), Err: errors.New("a command of ten run uses its data"),
				Hint: "wait for its end, or end it",
			}
			return
		}
		i.own.removal = &removal{purge: purge}
		i.failWaiters(Unknown(id))
		i.stop(tenement.GoalSleep, answer)
	}))
}

// unregister is the end of a deletion: no process is left. The row is the last to go: a
// deletion that was cut short can be asked for again, and what the instance had can
// never pass to another one of its name.
func (i *instance) unregister() error {
	o := &i.own
	purge := o.removal.purge
	o.removal = nil
	var err error
	if purge {
		err = i.sup.Disk.Remove(i.id, o.record.uid)
	} else { // what is kept is bounded by nobody's quota
		_, err = i.sup.Disk.Limit(i.sup.lives, i.id, o.record.uid, 0)
	}
	if err != nil {
		return err
	}
	i.sup.Logs.Drop(i.id)
	fault.Point(fault.Purged)
	if err := i.sup.Store.Delete(i.sup.lives, i.id); err != nil {
		return err
	}
	o.record = record{}
	o.state = tenement.Asleep
	i.publish()
	i.sup.Deleted(i.id)
	return nil
}

// Check asks id's health path now, and wakes nobody: of what is not ready the health
// is unknown. With HealthDegraded comes the error that the check met.
func (s *Supervisor) Check(ctx context.Context, id tenement.InstanceID) (tenement.Health, error) {
	var l *life
	var st tenement.Status
	if i := s.owner(id); i != nil {
		l = i.serving.Load()
		st, _ = i.observe()
	}
	switch {
	case l == nil, st.State == tenement.Frozen:
		return tenement.HealthUnknown, nil
	case l.service.Health.Path == "":
		return tenement.HealthUnchecked, nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := probe.Check(ctx, l.process.Dial, l.service.Health.Path); err != nil {
		return tenement.HealthDegraded, err
	}
	return tenement.HealthHealthy, nil
}

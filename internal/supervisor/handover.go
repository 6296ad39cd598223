package supervisor

import (
	"context"
	"errors"
	"sync"
	"time"

	"tenement"
)

// ErrMoved is wrapped by the errors of calls that came while the instances passed to
// another daemon: ask that one.
var ErrMoved = errors.New("another daemon takes over")

// Leave makes the end of Run leave every process running, for another daemon. Who
// holds a lease keeps it.
func (s *Supervisor) Leave() { s.leaving.Store(true) }

// stopped is why nothing can be had of id any more.
func (s *Supervisor) stopped(id tenement.InstanceID) error {
	err := errors.New("the daemon is stopping")
	if s.leaving.Load() {
		err = ErrMoved
	}
	return &tenement.Error{Code: tenement.CodeUnavailable, Op: "wake " + id.String(), Err: err, RetryAfter: time.Second}
}

// detach leaves the instance to another daemon. Those who hold a lease keep it.
func (i *instance) detach() {
	defer close(i.moved)
	o := &i.own
	i.serving.Store(nil)
	if l := o.life; l != nil && !l.fate.CompareAndSwap(fateOpen, fateMoved) {
		l.hurryUp()
		i.onEnded(<-l.released) // it ended this very instant
	}
	if l := o.life; l != nil {
		i.endBusy() // the other daemon has it on record
		l.gate.close()
		l.finishTurn()
		l.hurryUp()
		l.process.Detach()
		i.sup.setMoved(i.id, l)
	}
	i.leaveQueue()
	moved := i.sup.stopped(i.id)
	i.failWaiters(moved)
	for _, done := range o.enders {
		done <- moved
	}
}

func (s *Supervisor) setMoved(id tenement.InstanceID, l *life) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved[id] = l
}

// Hold is a lease on id's process if that is pid and serves; nobody is woken. It is
// CodeNotFound otherwise, or wraps ErrMoved.
func (s *Supervisor) Hold(id tenement.InstanceID, pid int) (tenement.Lease, error) {
	if i := s.owner(id); i != nil {
		if l := i.serving.Load(); l != nil && l.PID() == pid && l.enter() {
			return l, nil
		}
	}
	if s.leaving.Load() {
		return nil, s.stopped(id)
	}
	return nil, &tenement.Error{Code: tenement.CodeNotFound, Op: "hold " + id.String(), Err: errors.New("that process does not serve")}
}

// Hold gives a lease on an instance's process with that pid, wherever it is now.
type Hold func(ctx context.Context, id tenement.InstanceID, pid int) (tenement.Lease, error)

// Drain waits, after Run has left everything, until no lease is held any more, each
// for its service's drain_timeout at most. Meanwhile every process that somebody holds
// is held at hold as well.
func (s *Supervisor) Drain(ctx context.Context, hold Hold) {
	s.eachHeld(func(id tenement.InstanceID, l *life) {
		ctx, cancel := context.WithTimeout(ctx, l.service.Timeouts.Drain)
		defer cancel()
		if !l.holdOn(ctx, id, hold) {
			s.Log.Warn("connections are not waited for any longer: they outlasted drain_timeout", "instance", id, "leases", l.gate.count())
		}
	})
}

// KeepHeld is Drain for a daemon that goes on: only the end of ctx ends the wait.
func (s *Supervisor) KeepHeld(ctx context.Context, hold Hold) {
	s.eachHeld(func(id tenement.InstanceID, l *life) { l.holdOn(ctx, id, hold) })
}

// eachHeld returns when do has, of every process that was left and that somebody holds.
func (s *Supervisor) eachHeld(do func(tenement.InstanceID, *life)) {
	var group sync.WaitGroup
	for id, l := range s.moved {
		if l.gate.count() > 0 {
			group.Go(func() { do(id, l) })
		}
	}
	group.Wait()
}

// holdOn holds the process of l at hold until nobody holds l any more, or it has ended;
// false: ctx ended before.
func (l *life) holdOn(ctx context.Context, id tenement.InstanceID, hold Hold) bool {
	if lease, err := hold(ctx, id, l.PID()); err == nil {
		defer lease.Release()
	}
	select {
	case <-l.gate.drained:
	case <-l.process.Exited():
	case <-ctx.Done():
		return false
	}
	return true
}

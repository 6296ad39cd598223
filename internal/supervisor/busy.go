package supervisor

import (
	"context"
	"errors"
	"net"
	"time"

	"tenement"
)

// A process that works though nobody asks anything of it says until when. So long the
// supervisor holds a lease on it in its place: it is in use, for everything that asks, and
// neither frozen, put to sleep nor ended for others. An orderly end does not wait for it.

// MaxBusy bounds how long a process can say beforehand that it works.
const MaxBusy = 24 * time.Hour

// busy is the lease that is held for a process; the owner's.
type busy struct {
	until time.Time // zero: there is none
	timer *time.Timer
}

// over receives when it has lasted as long as it was to.
func (b *busy) over() <-chan time.Time {
	if b.timer == nil {
		return nil
	}
	return b.timer.C
}

// SetBusy holds off the sleep of id's process until a time, in the place of what was said
// before; what is past ends it, and the time without traffic then begins. It holds for that
// process only, whichever daemon has it. It is CodeInvalid beyond MaxBusy, and CodeConflict
// when there is no process, or it is being ended.
func (s *Supervisor) SetBusy(ctx context.Context, id tenement.InstanceID, until time.Time) error {
	if time.Until(until) > MaxBusy {
		return &tenement.Error{Code: tenement.CodeInvalid, Op: "hold off sleep", Err: errors.New("that is longer than " + MaxBusy.String())}
	}
	return s.operate(ctx, id, ifRegistered(func(i *instance, answer chan<- error) {
		answer <- i.setBusy(until)
	}))
}

func (i *instance) setBusy(until time.Time) error {
	o := &i.own
	switch {
	case o.state == tenement.Starting && o.life != nil, o.state == tenement.Ready, o.state == tenement.Frozen,
		o.state == tenement.Draining && o.goal == tenement.GoalIdle && !o.life.hasExited():
	default:
		return &tenement.Error{Code: tenement.CodeConflict, Op: "hold off sleep", Err: errors.New("it is " + o.state.String())}
	}
	if !until.After(time.Now()) {
		i.endBusy()
		i.noteProcess()
		return nil
	}
	i.beginBusy(until)
	switch o.state {
	case tenement.Frozen: // it has asked in the very instant before
		i.thaw()
	case tenement.Draining:
		i.callBack()
	}
	return i.keepProcess()
}

func (i *instance) beginBusy(until time.Time) {
	b := &i.own.life.busy
	if b.until.IsZero() {
		i.own.life.gate.hold()
		b.timer = stoppedTimer()
	}
	b.until = until
	b.timer.Reset(time.Until(until))
	i.publish()
}

// endBusy gives the lease back, if there is one.
func (i *instance) endBusy() {
	b := &i.own.life.busy
	if b.until.IsZero() {
		return
	}
	b.timer.Stop()
	*b = busy{}
	i.own.life.gate.leave()
	i.publish()
}

// onBusyOver: it was busy for as long as it has said.
func (i *instance) onBusyOver() {
	i.endBusy()
	i.noteProcess()
	if i.own.state == tenement.Ready {
		i.armIdle()
	}
}

// heed answers what id's process asks.
func (s *Supervisor) heed(id tenement.InstanceID) func(net.Listener) {
	if s.Heed == nil {
		return nil
	}
	return func(l net.Listener) { s.Heed(id, l) }
}

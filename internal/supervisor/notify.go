package supervisor

import (
	"context"
	"errors"
	"time"

	"tenement"
	tenruntime "tenement/internal/runtime"
)

// notify is what a process has said of itself (sd_notify(3)), and the time that it has.
// All but ready is the owner's.
type notify struct {
	ready    chan struct{} // receives when it says so
	missed   bool          // what it said first may have been said to nobody
	stopping bool          // it ends by itself
	term     term          // of its start or its end
	timer    *time.Timer   // of its start
}

// awaitReady returns when the process has said that it is ready, or, with CodeTimeout,
// when ctx ends.
func (n *notify) awaitReady(ctx context.Context) error {
	select {
	case <-n.ready:
		return nil
	case <-ctx.Done():
		return &tenement.Error{Code: tenement.CodeTimeout, Op: "wait until ready", Err: errors.New("it has not said READY=1")}
	}
}

// maxExtension bounds the whole of what a process may take to start or to stop, in terms
// of startup_timeout or stop_timeout.
const maxExtension = 10

// term is the time that a process has to start or to stop.
type term struct{ ends, latest time.Time }

func newTerm(limit time.Duration) term {
	now := time.Now()
	return term{now.Add(limit), now.Add(maxExtension * limit)}
}

// extend lets the term last for at least so long from now, as far as it may. It gives what
// is left; false: nothing has changed.
func (t *term) extend(by time.Duration) (left time.Duration, ok bool) {
	ends := time.Now().Add(by)
	if ends.After(t.latest) {
		ends = t.latest
	}
	if !ends.After(t.ends) {
		return 0, false
	}
	t.ends = ends
	return time.Until(ends), true
}

// onNotice hears what the process says of itself.
func (i *instance) onNotice(n tenruntime.Notice) {
	o := &i.own
	said := &o.life.notify
	said.stopping = said.stopping || n.Stopping
	switch o.state {
	case tenement.Starting:
		if left, ok := said.term.extend(n.Extend); ok {
			said.timer.Reset(left)
		}
		if n.Ready {
			select {
			case said.ready <- struct{}{}:
			default: // it has said so before
			}
		}
	case tenement.Ready:
		if n.Stopping {
			i.endsByItself()
		}
	case tenement.Stopping:
		if o.stopping || o.life.hurry.Err() != nil {
			return // the daemon waits for nobody; nor does who kills
		}
		if left, ok := said.term.extend(n.Extend); ok {
			o.timer.Reset(left)
		}
	}
}

// endsByItself lets requests under way end, and makes those that come wait for the next
// process. What its end means is decided as if it had said nothing.
func (i *instance) endsByItself() {
	o := &i.own
	i.stopHealth()
	i.endBusy()
	o.life.gate.close()
	i.step(tenement.Sleep)
	o.timer.Reset(i.service.Timeouts.Drain)
}

package supervisor

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"tenement"
)

// waiter is one request held until its instance is ready. Exactly one side settles
// it: the owner with an answer, or the request by giving up.
type waiter struct {
	settled atomic.Bool
	answer  chan answer
	asker   *tenement.Asker
	since   time.Time
}

type answer struct {
	life *life
	err  error
}

// requestGone: a request has its answer, or has given up.
func (i *instance) requestGone() {
	if i.requests.Add(-1) == 0 {
		i.prod()
	}
}

// wait holds a request until there is a process to lease, or an error. That it gives
// up changes nothing for the start it may have caused.
func (i *instance) wait(ctx context.Context) (tenement.Lease, error) {
	i.waiting.Add(1)
	defer i.waiting.Add(-1)
	w := &waiter{answer: make(chan answer, 1), asker: tenement.AskerOf(ctx), since: time.Now()}
	if err := i.send(ctx, func() { i.join(w) }); err != nil {
		return nil, err
	}
	return i.outcome(ctx, w)
}

func (i *instance) outcome(ctx context.Context, w *waiter) (tenement.Lease, error) {
	var a answer
	select {
	case a = <-w.answer:
	case <-ctx.Done():
		if w.settled.CompareAndSwap(false, true) {
			return nil, cause(ctx, i.id)
		}
		a = <-w.answer // the owner was faster
	}
	if a.err != nil {
		return nil, a.err
	}
	return a.life, nil
}

func (w *waiter) fail(err error) {
	if w.settled.CompareAndSwap(false, true) {
		w.answer <- answer{err: err}
	}
}

// grant gives w a lease, after the wake woken if it has waited for one. False: the process
// takes no more of them.
func (w *waiter) grant(l *life, woken *tenement.WakeRecord) bool {
	if !l.enter() {
		return false
	}
	if w.settled.CompareAndSwap(false, true) {
		w.asker.Wake = woken
		w.answer <- answer{life: l}
	} else {
		l.gate.leave()
	}
	return true
}

// join takes up a request: an answer now, or a place among the waiters and, if need
// be, a start.
func (i *instance) join(w *waiter) {
	o := &i.own
	if err := i.refusal(); err != nil {
		w.fail(err)
		return
	}
	switch o.state {
	case tenement.Asleep, tenement.Failed:
		i.enqueue(w)
		i.begin(tenement.Wake)
	case tenement.Draining:
		i.enqueue(w)
		if o.goal == tenement.GoalIdle {
			i.callBack()
		}
	case tenement.Backoff:
		i.enqueue(w)
		if i.hurries() {
			i.retry()
		}
	case tenement.Ready:
		if !w.grant(o.life, nil) {
			i.enqueue(w) // it has just ended by itself, or is being thawed
		}
	case tenement.Frozen:
		i.enqueue(w)
		i.thaw()
	default:
		i.enqueue(w)
		i.reorder()
	}
}

// refusal is why no request can be taken up now; nil when one can.
func (i *instance) refusal() error {
	o := &i.own
	switch {
	case o.record.broken != nil:
		return o.record.broken
	case o.stopping:
		return i.sup.stopped(i.id)
	case o.removal != nil:
		return Unknown(i.id)
	case !o.record.registered:
		return i.registerOnRequest()
	case o.record.suspended:
		return suspended(i.id)
	case o.state == tenement.Failed:
		if wait := time.Until(o.record.retryAt); wait > 0 {
			return i.unavailable(errors.New(o.record.reason), wait)
		}
	}
	if err := i.refusedByStorage(); err != nil {
		return err
	}
	if o.life == nil {
		return i.refusedByDisk()
	}
	return nil
}

// suspendedRetry is what clients of a suspended instance are told to wait: only a
// person ends that state.
const suspendedRetry = time.Minute

func suspended(id tenement.InstanceID) error {
	return &tenement.Error{
		Code: tenement.CodeSuspended, Op: "wake " + id.String(),
		Err:  errors.New("it is suspended"),
		Hint: "ten resume " + id.String(), RetryAfter: suspendedRetry,
	}
}

func (i *instance) unavailable(err error, retryAfter time.Duration) error {
	e := &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "start " + i.id.String(), Err: err,
		Hint: tenement.HintOf(err), RetryAfter: max(retryAfter, time.Second),
	}
	if e.Hint == "" {
		e.Hint = "see what it printed: ten logs " + i.id.String()
	}
	return e
}

// enqueue keeps the list no longer than twice the requests that still wait, however
// many gave up during one long start.
func (i *instance) enqueue(w *waiter) {
	o := &i.own
	if len(o.waiters) > 2*int(i.waiting.Load()) {
		o.waiters = slices.DeleteFunc(o.waiters, func(w *waiter) bool { return w.settled.Load() })
	}
	o.waiters = append(o.waiters, w)
	o.waking.share(w)
}

// wanted reports whether some request still waits.
func (i *instance) wanted() bool {
	return slices.ContainsFunc(i.own.waiters, func(w *waiter) bool { return !w.settled.Load() })
}

// serveWaiters gives a lease to all who wait, before anything can decide to sleep.
func (i *instance) serveWaiters() {
	o := &i.own
	for n, w := range o.waiters {
		if !w.grant(o.life, o.woken) {
			o.waiters = slices.Clone(o.waiters[n:])
			return
		}
	}
	o.waiters = nil
}

func (i *instance) failWaiters(err error) {
	for _, w := range i.own.waiters {
		w.fail(err)
	}
	i.own.waiters = nil
}

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"tenement"
	tenruntime "tenement/internal/runtime"
)

// instance is the owner of one awake instance: a goroutine, run, that alone
// changes its state. Others send it what to do through the inbox.
type instance struct {
	sup     *Supervisor
	id      tenement.InstanceID
	service *tenement.Service // the recipe of the present process, or of the next one
	base    *tenement.Service // what the configuration had when service was made of it

	inbox    chan func()
	shutdown chan struct{} // closed when the daemon stops
	moved    chan struct{} // closed when another daemon has the instance
	poke     chan struct{} // receives when there is something to see below

	// Others change these.
	held     atomic.Int64          // callers that need the owner to stay
	waiting  atomic.Int64          // of these, who wait for a process
	requests atomic.Int64          // of those, requests: not the operator
	claimed  atomic.Pointer[claim] // it is to make room
	tasks    atomic.Int64          // run in places of their own

	serving   atomic.Pointer[life]            // where leases are to be had
	published atomic.Pointer[tenement.Status] // what others see

	own ownership
}

// ownership is what only the owner's goroutine reads and writes.
type ownership struct {
	state     tenement.State
	goal      tenement.Goal
	record    record
	life      *life       // nil without a process
	timer     *time.Timer // the end of the time allowed for the present state
	ticket    *ticket     // the place of a start in the admission queue, then its slot; nil without one
	berth     berth
	revive    bool     // to be started again though nobody asks
	hasServed bool     // the last process was ready before it ended
	stopping  bool     // the daemon is
	removal   *removal // set while it is being deleted
	health    health
	storage   storage
	waiters   []*waiter
	waking    *waking              // nil: no start is under way
	woken     *tenement.WakeRecord // of the process that has just become ready; nil but for those who waited
	enders    []chan<- error       // told when no process is left

	unrecorded error // why the process is ended, if it could not be put on record
}

func newInstance(s *Supervisor, id tenement.InstanceID) *instance {
	service := s.service(id)
	i := &instance{
		sup: s, id: id, service: service, base: service,
		inbox:    make(chan func()),
		shutdown: make(chan struct{}),
		moved:    make(chan struct{}),
		poke:     make(chan struct{}, 1),
	}
	i.own.timer = stoppedTimer()
	i.own.health = health{timer: stoppedTimer(), verdict: tenement.HealthUnknown}
	i.own.storage.timer = stoppedTimer()
	i.own.revive = s.plan.Load().pins(id)
	return i
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// run is the owner of what is begun now.
func (i *instance) run() {
	i.load()
	i.goOn()
}

// goOn is the owner. It ends when there is neither a process nor anybody who wants one.
func (i *instance) goOn() {
	shutdown := i.shutdown
	for !i.finished() {
		o := &i.own
		select {
		case do := <-i.inbox:
			do()
		case <-i.poke:
			i.reorder()
			i.onClaim()
		case <-shutdown:
			shutdown = nil
			if i.sup.leaving.Load() {
				i.detach()
				return
			}
			i.stopForGood()
		case <-i.granted():
			i.onGranted()
		case gone := <-o.berth.victim.settled():
			i.onRoomMade(gone)
		case err := <-o.life.events().probed:
			i.onProbe(err)
		case <-o.life.events().drained:
			i.onDrained()
		case err := <-o.life.events().released:
			i.onEnded(err)
		case err := <-o.life.events().checked:
			i.onChecked(err)
		case err := <-o.life.events().turned:
			i.onTurned(err)
		case m := <-o.life.events().measured:
			i.onMeasured(m)
		case n := <-o.life.events().notices:
			i.onNotice(n)
		case <-o.life.events().busyOver:
			i.onBusyOver()
		case <-o.storage.timer.C:
			i.measureStorage()
		case <-o.health.timer.C:
			i.checkHealth()
		case <-o.timer.C:
			i.onDeadline()
		}
	}
	i.refuseClaim()
	i.own.timer.Stop()
	i.own.health.timer.Stop()
	i.own.storage.timer.Stop()
}

// finished reports whether the owner may end, and if so has made it unreachable.
func (i *instance) finished() bool {
	return i.own.state.Rests() && i.sup.retire(i)
}

// events are the channels of a life; all nil, so never ready, without one.
type events struct {
	probed, checked, turned, released <-chan error
	drained                           <-chan struct{}
	measured                          <-chan measurement
	notices                           <-chan tenruntime.Notice
	busyOver                          <-chan time.Time
}

func (l *life) events() events {
	if l == nil {
		return events{}
	}
	return events{
		probed: l.probed, checked: l.checked, turned: l.turned, released: l.released,
		drained: l.gate.drained, measured: l.measured, notices: l.process.Notices(), busyOver: l.busy.over(),
	}
}

// step makes one transition and publishes it. A step that the table does not have
// is a fault of ours: it is reported and nothing changes.
func (i *instance) step(t tenement.Trigger) {
	next, err := tenement.Next(i.own.state, t, i.own.goal)
	if err != nil {
		i.sup.Log.Error("illegal step", "instance", i.id, "error", err)
		return
	}
	before := i.own.state
	i.own.state = next
	if told := i.sup.Observer.Changed; told != nil && next != before {
		told(i.id, before, next)
	}
	i.follow(before, t)
	i.publish()
}

// publish makes the present state visible to others.
func (i *instance) publish() {
	o := &i.own
	if !o.record.registered {
		i.published.Store(nil)
		return
	}
	st := &tenement.Status{
		ID: i.id, State: o.state, Health: o.health.verdict,
		Restarts: len(o.record.crashes), Reason: o.record.reason, OOMKills: o.record.oomKills,
		CreatedAt: o.record.createdAt, HealthyAt: o.record.healthyAt,
	}
	if o.state == tenement.Backoff || o.state == tenement.Failed {
		st.RetryAt = o.record.retryAt
	}
	if o.life != nil {
		ref := o.life.process.Ref()
		st.PID, st.Port, st.StartedAt, st.BusyUntil = ref.PID, ref.Port, o.life.startedAt, o.life.busy.until
	}
	i.published.Store(st)
}

// observe may be called by anyone. False: not registered, as far as is known.
func (i *instance) observe() (tenement.Status, bool) {
	published := i.published.Load()
	if published == nil {
		return tenement.Status{}, false
	}
	st := *published
	st.Waiting = int(i.waiting.Load())
	if l := i.serving.Load(); l != nil {
		st.Leases = l.gate.count()
		if !st.BusyUntil.IsZero() && st.Leases > 0 {
			st.Leases-- // that one is no request
		}
		st.LastActive = l.gate.lastActive()
	}
	return st, true
}

// send has the owner do something. The caller must hold the owner.
func (i *instance) send(ctx context.Context, do func()) error {
	select {
	case i.inbox <- do:
		return nil
	case <-i.moved:
		return i.sup.stopped(i.id)
	case <-ctx.Done():
		return cause(ctx, i.id)
	}
}

// ask has the owner do something that ends in an answer.
func (i *instance) ask(ctx context.Context, do func(answer chan<- error)) error {
	answer := make(chan error, 1)
	if err := i.send(ctx, func() { do(answer) }); err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return cause(ctx, i.id)
	}
}

// dismiss undoes summon.
func (i *instance) dismiss() {
	if i.held.Add(-1) == 0 {
		i.prod()
	}
}

// prod has the owner look around, soon. It waits for nothing.
func (i *instance) prod() {
	select {
	case i.poke <- struct{}{}:
	default:
	}
}

// cause is why ctx ended, as an error with a code.
func cause(ctx context.Context, id tenement.InstanceID) error {
	err := context.Cause(ctx)
	var ours *tenement.Error
	if errors.As(err, &ours) {
		return err
	}
	return &tenement.Error{Code: tenement.CodeOf(err), Op: "wait for " + id.String(), Err: err}
}

// onDeadline: the time allowed for the present state is up.
func (i *instance) onDeadline() {
	switch i.own.state {
	case tenement.Ready, tenement.Frozen:
		i.rest()
	case tenement.Draining:
		i.terminate()
	case tenement.Stopping:
		i.kill()
	case tenement.Backoff:
		i.retry()
	}
}

// note writes a remark about an instance that does not do well into its own log, for
// its people, and into the daemon's, for the operator.
func (i *instance) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	i.sup.Logs.Append(i.id, logLevel, "tenement: "+text)
	i.sup.Log.Warn("instance", "instance", i.id, "event", text)
}

// Package agenda does for instances what no request does: it hears from them until when they
// work and when they want to be woken, and wakes them then.
package agenda

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"tenement"
	"tenement/internal/store"
)

// Config is what an [Agenda] works with. Every field but Log is required, and all functions
// are called concurrently.
type Config struct {
	Store *store.Store

	// SetBusy holds off the sleep of an instance's process until a time; BusyUntil is that
	// time, zero for none.
	SetBusy   func(ctx context.Context, id tenement.InstanceID, until time.Time) error
	BusyUntil func(id tenement.InstanceID) time.Time

	// Services are those of the first configuration; Host is under which name people reach an instance.
	Services map[string]*tenement.Service
	Host     func(id tenement.InstanceID) string

	// Lines are the cron lines of an instance: its own, and those of its service that it has
	// no own ones in the place of.
	Lines func(ctx context.Context, id tenement.InstanceID) ([]tenement.CronLine, error)

	// Note writes a remark about an instance into its log.
	Note func(id tenement.InstanceID, text string)

	// Acquire wakes an instance and gives a lease on its process. Requests come first.
	Acquire func(ctx context.Context, id tenement.InstanceID) (tenement.Lease, error)

	Log *slog.Logger // nil: nothing is logged
}

// Agenda is safe for concurrent use. However many instances have something on it, it has one
// timer, and in memory only what is under way.
type Agenda struct {
	Config
	server  *http.Server
	running chan struct{} // closed once Run is called
	changed chan struct{} // receives when something may be due earlier than it was
	full    chan struct{} // an element for each wake that is under way

	services atomic.Pointer[map[string]*tenement.Service]
	runs     sync.WaitGroup // of cron lines
	underWay sync.Map       // of runKey

	// These are the goroutine's of Run.
	read  *map[string]*tenement.Service // the services that lines are of
	lines []*line
}

// New allocates; nothing is done before [Agenda.Run].
func New(c Config) *Agenda {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	a := &Agenda{
		Config:  c,
		running: make(chan struct{}),
		changed: make(chan struct{}, 1),
		full:    make(chan struct{}, maxUnderWay),
	}
	a.services.Store(&c.Services)
	a.server = a.newServer()
	return a
}

const (
	// maxUnderWay is how many instances are woken at once, those included that do something
	// since; what is due beyond that waits.
	maxUnderWay = 1000

	// maxPause is how soon a change of the clock is noticed, in which a day may pass at once.
	maxPause = time.Minute

	// failurePause is the wait after the registry could not be read.
	failurePause = 5 * time.Second
)

// Run does what is due until ctx ends, and returns when nobody is being woken any more. Call
// it once.
func (a *Agenda) Run(ctx context.Context) {
	close(a.running)
	var wakes sync.WaitGroup
	defer wakes.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-a.changed:
		}
		next, err := a.doDue(ctx, &wakes)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errFull):
			timer.Reset(maxPause) // or when one of them is done
		case err != nil:
			a.Log.Error("what is due cannot be read", "error", err)
			timer.Reset(failurePause)
		case next.IsZero():
			timer.Stop() // until something changes
		default:
			timer.Reset(min(time.Until(next), maxPause))
		}
	}
}

// doDue begins what is due and says when more is; the zero time: nothing ever.
func (a *Agenda) doDue(ctx context.Context, wakes *sync.WaitGroup) (next time.Time, err error) {
	if err := a.ringDue(ctx, wakes); err != nil {
		return next, err
	}
	alarm, err := a.Store.NextAlarm(ctx)
	if err != nil {
		return next, err
	}
	cron, err := a.runDue(ctx)
	return earlier(alarm, cron), err
}

// Poke has Run look again at what is due.
func (a *Agenda) Poke() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

const (
	// alarmRetry is the wait before an instance that could not be woken is tried again, unless
	// it is known to take longer.
	alarmRetry = time.Minute

	// alarmPatience bounds the attempts to wake one, from when it was to be woken.
	alarmPatience = time.Hour

	// alarmClaim is how long an attempt may take before there is another one: a daemon that
	// ends in the middle of one leaves it to the next.
	alarmClaim = 5 * time.Minute

	// dueAtOnce is how many alarms are read at once.
	dueAtOnce = 100
)

// ringDue begins to wake those whose alarm is due. One alarm is attempted at least once,
// whatever becomes of the daemon.
func (a *Agenda) ringDue(ctx context.Context, wakes *sync.WaitGroup) error {
	for {
		due, err := a.Store.DueAlarms(ctx, time.Now(), dueAtOnce)
		if err != nil || len(due) == 0 {
			return err
		}
		for _, alarm := range due {
			if len(a.full) == cap(a.full) {
				return errFull
			}
			if line, ok := alarm.CronLine(); ok {
				if err := a.runOwn(ctx, alarm, line); err != nil {
					return err
				}
				continue
			}
			if err := a.Store.PutOff(ctx, alarm, time.Now().Add(alarmClaim)); err != nil {
				return err
			}
			a.full <- struct{}{} // there is room, and nobody else takes it
			wakes.Go(func() {
				defer a.leave()
				a.ring(ctx, alarm)
			})
		}
	}
}

// leave gives back a place among those under way, for which something may wait.
func (a *Agenda) leave() {
	<-a.full
	a.Poke()
}

// ring wakes one instance, or notes when that is tried again.
func (a *Agenda) ring(ctx context.Context, alarm store.Alarm) {
	lease, err := a.Acquire(ctx, alarm.ID)
	stopping := ctx.Err() != nil
	ctx = context.WithoutCancel(ctx) // what is written down says what has happened
	log := a.Log.With("instance", alarm.ID, "alarm", alarm.Name)
	switch {
	case err == nil:
		lease.Release()
		log.Info("woken by its alarm", "at", alarm.At)
		err = a.Store.Rung(ctx, alarm)
	case stopping:
		err = a.Store.PutOff(ctx, alarm, alarm.Due) // the next daemon does it
	case time.Since(alarm.At) > alarmPatience:
		log.Warn("its alarm is given up", "at", alarm.At, "error", err)
		err = a.Store.Rung(ctx, alarm)
	default:
		log.Warn("its alarm could not wake it; tried again", "error", err)
		err = a.Store.PutOff(ctx, alarm, time.Now().Add(max(retryAfter(err), alarmRetry)))
		a.Poke()
	}
	if err != nil {
		log.Error("note what became of an alarm", "error", err)
	}
}

func retryAfter(err error) time.Duration {
	if e := (*tenement.Error)(nil); errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}

// Package alert tells the operator by a webhook what goes wrong with instances and with
// the disk, as Standard Webhooks 1.0.0 says (https://www.standardwebhooks.com).
package alert

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tenement"
	"tenement/internal/store"
)

const (
	// maxPending bounds what is to be sent; the oldest makes way.
	maxPending = 1000

	// quiet is how long nothing more is said of one kind about one instance.
	quiet = time.Hour

	// lookPace is how often the disk is looked at, and what has become too old.
	lookPace = 10 * time.Second
)

// Config is what an [Outbox] works with. Every field but Receiver and Log is required; the
// functions are called concurrently.
type Config struct {
	Store    *store.Store
	Receiver *Receiver     // the first one; nil: nobody is told anything
	Domain   func() string // says in each message whose it is

	// Room is what others than root can still have of the data directory's file system, and
	// how large that is; 0: it is not known.
	Room func() (available, total tenement.Bytes)

	Sent func(tenement.AlertKind)
	// GaveUp is told of what the receiver refused, or has not taken for a day.
	GaveUp func(tenement.AlertKind)
	Lost   func(n int) // there was no room for them

	Log *slog.Logger // nil: nothing is logged
}

// Outbox sends alerts until the receiver has them: what is to be sent is on record, so that
// the next daemon goes on. Its methods may be called concurrently.
type Outbox struct {
	Config
	most     int // maxPending
	receiver atomic.Pointer[Receiver]
	changed  chan struct{} // receives when there is something to see

	mu      sync.Mutex
	told    []news   // not on record yet
	pending []*entry // the oldest first; changed by Run's goroutine alone

	// These are the goroutine's of Run.
	served   *Receiver // to which the entries' times belong
	resumeAt time.Time // nothing is sent before
	undone   []string  // sent, but still on record
	disk     disk
}

// news is what was just told.
type news struct {
	kind   tenement.AlertKind
	id     tenement.InstanceID
	at     time.Time
	reason string
	room   *room
}

// entry is an alert that is to be sent.
type entry struct {
	tenement.Alert
	unkept bool // the record does not say what it should
}

// New allocates; nothing is sent before [Outbox.Run].
func New(c Config) *Outbox {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	o := &Outbox{Config: c, most: maxPending, changed: make(chan struct{}, 1)}
	o.receiver.Store(c.Receiver)
	return o
}

// Reconfigure has everything sent to r from now on, at once; nil: nothing is sent.
func (o *Outbox) Reconfigure(r *Receiver) {
	o.receiver.Store(r)
	o.poke()
}

// Tell has the operator told that something has happened to id, if they want to know and
// were not told within an hour. It waits for nothing.
func (o *Outbox) Tell(kind tenement.AlertKind, id tenement.InstanceID, reason string) {
	if o.receiver.Load().wants(kind) {
		o.tell(news{kind: kind, id: id, at: time.Now(), reason: reason})
	}
}

func (o *Outbox) tell(n news) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if slices.ContainsFunc(o.told, func(m news) bool { return m.kind == n.kind && m.id == n.id }) {
		return
	}
	o.told = append(o.told, n)
	if len(o.told) > o.most {
		o.told = slices.Delete(o.told, 0, 1)
		o.Lost(1)
	}
	o.poke()
}

// poke has Run look around. It waits for nothing.
func (o *Outbox) poke() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// Pending lists what is to be sent, the oldest first.
func (o *Outbox) Pending() []tenement.Alert {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]tenement.Alert, len(o.pending))
	for i, e := range o.pending {
		list[i] = e.Alert
	}
	return list
}

// Run sends what is told, one at a time, until ctx ends. Call it once.
func (o *Outbox) Run(ctx context.Context) {
	o.load(ctx)
	look := time.NewTicker(lookPace)
	defer look.Stop()
	due := time.NewTimer(0)
	defer due.Stop()
	var underWay <-chan outcome // nil: nothing is being sent
	for {
		select {
		case <-ctx.Done():
			if underWay != nil {
				o.settle(ctx, <-underWay)
			}
			return
		case done := <-underWay:
			underWay = nil
			o.settle(ctx, done)
		case <-look.C:
			o.expire(ctx)
			o.catchUp(ctx)
		case <-o.changed:
		case <-due.C:
		}
		o.lookAtDisk()
		o.keep(ctx)
		if underWay == nil {
			var wait time.Duration
			underWay, wait = o.sendNext(ctx)
			due.Reset(wait)
		}
	}
}

// Flush puts on record, after Run has returned, what was told since.
func (o *Outbox) Flush(ctx context.Context) {
	o.keep(ctx)
	o.catchUp(ctx)
	for _, e := range o.pending {
		if e.unkept {
			o.Lost(1)
			o.Log.Error("an alert is lost with the daemon", "kind", e.Kind, "instance", e.Instance)
		}
	}
}

// load goes on where an earlier daemon was.
func (o *Outbox) load(ctx context.Context) {
	list, err := o.Store.Alerts(ctx)
	if err == nil {
		err = o.disk.load(ctx, o.Store)
	}
	if err != nil {
		o.Log.Error("alerts of an earlier daemon cannot be read", "error", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range list {
		o.pending = append(o.pending, &entry{Alert: a})
	}
}

// keep puts on record what was told, unless that was said within an hour. What the disk
// refuses is sent all the same.
func (o *Outbox) keep(ctx context.Context) {
	o.mu.Lock()
	told := o.told
	o.told = nil
	o.mu.Unlock()
	for _, n := range told {
		if o.wasSaid(ctx, n) {
			continue
		}
		e := &entry{Alert: tenement.Alert{
			ID: newID(), Kind: n.kind, At: n.at, Instance: n.id, Body: o.body(n), Due: n.at,
		}}
		o.put(ctx, e)
		o.add(ctx, e)
	}
}

// wasSaid reports whether n is about an instance of which that was said within an hour.
func (o *Outbox) wasSaid(ctx context.Context, n news) bool {
	if n.id.IsZero() {
		return false
	}
	last, err := o.Store.LastAlert(ctx, n.kind, n.id)
	if err != nil {
		o.Log.Error("it is not known when an alert was sent last", "kind", n.kind, "instance", n.id, "error", err)
	}
	return n.at.Sub(last) < quiet || slices.ContainsFunc(o.pending, func(e *entry) bool { // one that the disk has refused
		return e.unkept && e.Kind == n.kind && e.Instance == n.id && n.at.Sub(e.At) < quiet
	})
}

// add makes room for e if need be.
func (o *Outbox) add(ctx context.Context, e *entry) {
	o.mu.Lock()
	o.pending = append(o.pending, e)
	o.mu.Unlock()
	if len(o.pending) > o.most {
		o.Lost(1)
		o.remove(ctx, o.pending[0])
	}
}

// put has the record say what e is.
func (o *Outbox) put(ctx context.Context, e *entry) {
	err := o.Store.PutAlert(context.WithoutCancel(ctx), e.Alert)
	e.unkept = err != nil
	o.unwritten(err)
}

// remove forgets e, which may be forgotten already.
func (o *Outbox) remove(ctx context.Context, e *entry) {
	o.mu.Lock()
	o.pending = slices.DeleteFunc(o.pending, func(other *entry) bool { return other == e })
	o.mu.Unlock()
	if err := o.Store.DeleteAlert(context.WithoutCancel(ctx), e.ID); err != nil {
		o.undone = append(o.undone, e.ID)
		o.unwritten(err)
	}
}

// unwritten logs an error, unless the disk refuses everything, which is said once elsewhere.
func (o *Outbox) unwritten(err error) {
	if err != nil && o.Store.Refused() == nil {
		o.Log.Error("the record of alerts could not be changed", "error", err)
	}
}

// catchUp has the record say what it should, once the disk takes it.
func (o *Outbox) catchUp(ctx context.Context) {
	if o.Store.Refused() != nil {
		return
	}
	for _, e := range o.pending {
		if e.unkept {
			o.put(ctx, e)
		}
	}
	o.undone = slices.DeleteFunc(o.undone, func(id string) bool {
		return o.Store.DeleteAlert(context.WithoutCancel(ctx), id) == nil
	})
}

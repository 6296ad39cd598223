package supervisor

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"tenement"
	"tenement/internal/fault"
	"tenement/internal/logs"
	tenruntime "tenement/internal/runtime"
	"tenement/internal/store"
)

// legacy is a process that an earlier daemon recorded, as this one found it.
type legacy struct {
	id         tenement.InstanceID
	registered bool
	row        tenement.Instance // of what is registered
	record     store.Process
	process    tenruntime.Process // nil when there is none any more
	lost       error              // why there is none
}

// takeOver finds the processes that an earlier daemon recorded, has everything else
// that it left ended, and gives each to an owner, which goes on where that daemon was.
func (s *Supervisor) takeOver(ctx context.Context) error {
	found, err := s.find(ctx)
	if err != nil {
		return err
	}
	var adopted []tenement.Ref
	for _, f := range found {
		if f.process != nil {
			adopted = append(adopted, f.record.Ref)
		}
	}
	fault.Point(fault.AdoptedAll)
	if s.Sweep != nil {
		s.Sweep(ctx, adopted)
	}
	fault.Point(fault.Swept)
	for _, f := range found {
		s.inherit(f) //nolint:contextcheck // an owner outlives the call
	}
	if len(found) > 0 {
		s.Log.Info("took over from an earlier daemon", "processes", len(adopted), "gone", len(found)-len(adopted))
	}
	return nil
}

// find looks for every recorded process. It touches no stranger.
func (s *Supervisor) find(ctx context.Context) ([]*legacy, error) {
	records, err := s.Store.Processes(ctx)
	if err != nil {
		return nil, err
	}
	var group errgroup.Group
	group.SetLimit(runtime.NumCPU())
	found := make([]*legacy, 0, len(records))
	for id, record := range records {
		f := &legacy{id: id, record: record}
		found = append(found, f)
		group.Go(func() error { return s.lookFor(ctx, f) })
	}
	return found, group.Wait()
}

func (s *Supervisor) lookFor(ctx context.Context, f *legacy) error {
	row, err := s.Store.Instance(ctx, f.id)
	if err != nil && tenement.CodeOf(err) != tenement.CodeNotFound {
		return err
	}
	f.row, f.registered = row, err == nil
	rt := s.Runtimes[f.record.Ref.Isolation]
	if rt == nil {
		f.lost = errors.New("no runtime for isolation " + string(f.record.Ref.Isolation))
		return nil
	}
	spec := s.spec(f.id)
	if f.record.Ref.Isolation != tenement.IsolationProcess {
		spec.UID = f.row.UID
	}
	f.process, f.lost = rt.Adopt(ctx, spec, f.record.Ref)
	fault.Point(fault.Adopted)
	switch tenement.CodeOf(f.lost) {
	case "", tenement.CodeNotFound, tenement.CodeUnavailable:
		return nil
	}
	return f.lost // it may live: nothing can be done before that is known
}

// spec is what a process of id needs of us, whichever daemon started it.
func (s *Supervisor) spec(id tenement.InstanceID) tenruntime.Spec {
	return tenruntime.Spec{
		Instance: id, Service: s.service(id),
		Stdout: s.Logs.Sink(id, logs.Stdout), Stderr: s.Logs.Sink(id, logs.Stderr), Heed: s.heed(id),
	}
}

// inherit gives what was found to an owner, or ends it if nobody can own it.
func (s *Supervisor) inherit(f *legacy) {
	if s.service(f.id) == nil {
		s.owners.Go(func() { s.endOrphan(f) })
		return
	}
	i := newInstance(s, f.id)
	i.inherit(f) // now: whoever asks next is told how it stands, and the daemon before may hold it
	s.mu.Lock()
	s.awake[f.id] = i
	s.mu.Unlock()
	s.owners.Go(i.goOn)
}

// orphanStop is the stop_timeout of a process whose service is not configured any more.
const orphanStop = 10 * time.Second

func (s *Supervisor) endOrphan(f *legacy) {
	log := s.Log.With("instance", f.id, "pid", f.record.Ref.PID)
	if p := f.process; p != nil {
		log.Warn("ending a process whose service is not configured any more")
		ctx, cancel := context.WithTimeout(s.lives, orphanStop)
		defer cancel()
		if err := end(ctx, p); err != nil {
			log.Error("cannot end it", "error", err)
			return // the record stays: the next daemon tries again
		}
	}
	if err := s.Store.DeleteProcess(s.lives, f.id); err != nil {
		log.Error("forget a process of an earlier daemon", "error", err)
	}
}

// end ends p and its tree: in good order until ctx ends, then by force.
func end(ctx context.Context, p tenruntime.Process) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := p.Thaw(); err != nil { // a frozen one hears it now
		return err
	}
	select {
	case <-p.Exited():
	case <-ctx.Done():
		if err := p.Kill(); err != nil {
			return err
		}
		<-p.Exited()
	}
	return p.Release(ctx)
}

// inherit goes on where an earlier daemon was with the instance.
func (i *instance) inherit(f *legacy) {
	o := &i.own
	if f.registered {
		i.know(f.row)
	}
	if f.process == nil {
		i.missed(f)
		return
	}
	o.state = f.record.State
	if _, err := i.takeRecipe(); err != nil { // what runs need not end for it
		i.sup.Log.Warn("an adopted process has the settings of its service", "instance", i.id, "error", err)
	}
	o.life = newLife(i, f.process)
	i.takePlace()
	o.life.frost.still = f.process.Frozen()
	o.life.startedAt = f.record.StartedAt
	// Up to activityPace may have passed before its last use was written down.
	o.life.gate.usedAt(f.record.ActiveAt.Add(activityPace))
	go o.life.watch()
	if until := f.record.BusyUntil; until.After(time.Now()) {
		i.beginBusy(until)
	}
	switch {
	case !o.record.registered || o.record.suspended || o.state == tenement.Stopping:
		o.state = tenement.Starting // from which it can be ended without a drain
		i.stop(i.goalAtRest(), nil)
	case o.state == tenement.Starting:
		i.publish()
		i.resumeStorage()
		i.turn()
		o.life.notify.missed = true
		o.life.probe(max(i.service.Timeouts.Startup-time.Since(o.life.startedAt), minProbe), i.urgent)
	default:
		o.record.reason = "" // of an earlier rest
		o.state = tenement.Ready
		if o.life.frost.still { // the process knows: the record may be of an instant before
			o.state = tenement.Frozen
			o.life.gate.close()
		}
		i.serve()
		i.resumeStorage()
		i.resumeHealth(f.record.HealthFailures)
		i.publish()
		i.armIdle()
		if o.state == tenement.Frozen && !o.life.busy.until.IsZero() {
			i.thaw() // the daemon before was about to
		}
	}
}

// minProbe is what a process that was starting while there was no daemon has at least
// to show that it is ready.
const minProbe = time.Second

// goalAtRest is how an instance that is to have no process comes to rest.
func (i *instance) goalAtRest() tenement.Goal {
	if i.own.record.suspended {
		return tenement.GoalSuspend
	}
	return tenement.GoalSleep
}

// missed deals with the end of a process that nobody saw. It is a crash, unless it was
// to end anyway or the whole machine was restarted.
func (i *instance) missed(f *legacy) {
	o := &i.own
	i.forgetProcess()
	expected := f.record.State == tenement.Stopping || f.record.Ref.BootID != tenruntime.BootID()
	if expected || !o.record.registered || o.record.suspended {
		i.settle()
		return
	}
	err := f.lost
	switch {
	case errors.Is(err, tenement.ErrOutOfMemory):
		i.countOOMKill()
		err = fmt.Errorf("%s while no daemon was running", i.ending(tenement.Exit{OOM: true}))
	case tenement.CodeOf(err) == tenement.CodeNotFound:
		err = errors.New("it ended while no daemon was running")
	}
	o.state = tenement.Backoff
	o.hasServed = f.record.State == tenement.Ready || f.record.State == tenement.Frozen
	o.revive = o.hasServed && i.service.Restart.Mode != tenement.RestartNever
	i.crashed(err)
}

// keepProcess writes down where the live process is to be found again, and how it does.
func (i *instance) keepProcess() error {
	o := &i.own
	p := store.Process{
		Ref: o.life.process.Ref(), State: o.state,
		StartedAt: o.life.startedAt, ActiveAt: o.life.gate.lastActive(),
		BusyUntil: o.life.busy.until, HealthFailures: o.health.failures,
	}
	return i.sup.Store.PutProcess(i.sup.lives, i.id, p)
}

// noteProcess is keepProcess where an outdated record does no great harm.
func (i *instance) noteProcess() {
	if err := i.keepProcess(); err != nil {
		i.sup.unwritten("note a process", i.id, err)
	}
}

// activityPace is how exactly the last use of a process is known after a kill -9.
const activityPace = 5 * time.Second

// noteActivity writes down, at that pace and until ctx ends, which processes are in
// use: what is idle costs one comparison.
func (s *Supervisor) noteActivity(ctx context.Context) {
	tick := time.NewTicker(activityPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.bringUpToDate(ctx)
		used := s.used()
		if len(used) == 0 {
			continue
		}
		if err := s.Store.PutActivity(ctx, used); err != nil && ctx.Err() == nil && s.Store.Refused() == nil {
			s.Log.Error("note activity", "error", err)
		}
	}
}

// used lists the processes that were used since it was called last.
func (s *Supervisor) used() map[tenement.InstanceID]time.Time {
	s.mu.RLock()
	defer s.mu.RUnlock()
	used := make(map[tenement.InstanceID]time.Time)
	for id, i := range s.awake {
		l := i.serving.Load()
		if l == nil {
			continue
		}
		if l.gate.count() > 0 {
			l.gate.touch()
		}
		if last := l.gate.lastUse.Load(); last != l.noted {
			l.noted = last
			used[id] = l.gate.lastActive()
		}
	}
	return used
}

package supervisor

import (
	"context"
	"errors"
	"syscall"
	"time"

	"tenement"
)

// A disk that is full or read-only is no fault of any tenant. Nothing is started or put
// to sleep for want of traffic meanwhile, what is awake is served, and no crash is
// counted. The store says once that it is so; here it is not said again.

// diskPause is what a start waits for that the disk has refused, and what a client is
// told to wait.
const diskPause = 2 * time.Second

// refusedByDisk is why nothing can be started now, because it could not be recorded;
// nil when it can.
func (i *instance) refusedByDisk() error {
	if err := i.sup.Store.Refused(); err != nil {
		return i.unavailable(err, diskPause)
	}
	return nil
}

// fromDisk reports whether a start failed for want of a disk that can be written.
func fromDisk(err error) bool {
	for _, number := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		if errors.Is(err, number) {
			return true
		}
	}
	return false
}

// unrecorded ends a process that could not be put on record, and so might be lost.
func (i *instance) unrecorded(err error) {
	i.own.unrecorded = err
	i.misbehaved(err)
}

// postpone waits for the disk in place of a crash's back-off. The instance is in Backoff.
func (i *instance) postpone(err error) {
	o := &i.own
	o.hasServed = false // who asks now is told, and not held
	o.record.reason = err.Error()
	o.record.retryAt = time.Now().Add(diskPause)
	i.publish()
	i.failWaiters(i.unavailable(err, diskPause))
	if i.sup.Store.Refused() == nil {
		i.note("%v", err)
	}
	o.timer.Reset(diskPause)
}

// unwritten logs that the registry was not told something, and has it told later.
func (s *Supervisor) unwritten(what string, id tenement.InstanceID, err error) {
	s.outdated.Store(true)
	if s.Store.Refused() == nil {
		s.Log.Error("the registry was not told something", "what", what, "instance", id, "error", err)
	}
}

// bringUpToDate has every owner write down again how it stands, once that can be done
// after it could not.
func (s *Supervisor) bringUpToDate(ctx context.Context) {
	if s.Store.Refused() != nil || !s.outdated.Swap(false) {
		return
	}
	records, err := s.Store.Processes(ctx)
	if err != nil {
		s.unwritten("read the processes", tenement.InstanceID{}, err)
	}
	for id := range records {
		if s.service(id) == nil {
			continue // the next daemon forgets it
		}
		if i, err := s.summon(id); err == nil {
			_ = i.send(ctx, i.rewrite) // fails when the daemon ends
			i.dismiss()
		}
	}
}

func (i *instance) rewrite() {
	if i.own.life != nil {
		i.noteProcess()
	} else {
		i.forgetProcess()
	}
}

func (i *instance) forgetProcess() {
	if err := i.sup.Store.DeleteProcess(i.sup.lives, i.id); err != nil {
		i.sup.unwritten("forget a process", i.id, err)
	}
}

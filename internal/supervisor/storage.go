package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"tenement"
	"tenement/internal/disk"
	tenruntime "tenement/internal/runtime"
)

// Where the file system itself does not bound a data directory it is measured: before
// each start, and while a process may write to it. At the limit the instance is put to
// sleep, and requests are refused until a measurement finds room.
const (
	// storagePace is how often that is while awake, unless a measurement takes so long
	// that it would cost more than a fiftieth of a core.
	storagePace  = 10 * time.Second
	storageShare = 50
	// storagePause is how long a refusal stands, unless measuring takes more than a
	// tenth of that.
	storagePause      = 2 * time.Second
	storagePauseShare = 10
	longestPause      = time.Minute
	// measuringShare leaves nine tenths of a core, however many instances are measured.
	measuringShare = 10
)

// storage is the state of an instance's measurements.
type storage struct {
	timer *time.Timer
	due   bool            // a measurement is, that was put off because the instance is frozen
	full  *tenement.Error // why nothing is started and no request is taken up; nil otherwise
}

// measurement is what one look at a data directory of a live process came to.
type measurement struct {
	err  error
	took time.Duration
}

// prepareStorage makes the directory of the next process, gives it to its user and
// bounds it. CodeStorageFull: it has no room left.
func (i *instance) prepareStorage(spec *tenruntime.Spec) (how disk.Enforcement, err error) {
	s, r := i.sup, &i.own.record
	if i.service.Isolation != tenement.IsolationProcess {
		if r.uid == 0 {
			plan := s.plan.Load()
			if r.uid, err = s.Store.UID(s.lives, i.id, plan.FirstUID, plan.UIDs); err != nil {
				return how, err
			}
		}
		spec.UID = r.uid
	}
	if spec.DataDir, err = s.Disk.Make(s.lives, i.id, spec.UID); err != nil {
		return how, err
	}
	if spec.UID != r.uid { // it had one when it was isolated otherwise
		if _, err := s.Disk.Limit(s.lives, i.id, r.uid, 0); err != nil {
			return how, err
		}
	}
	how, err = s.Disk.Limit(s.lives, i.id, spec.UID, i.service.Limits.Storage)
	if err == nil && how == disk.Measured {
		err = s.measure(s.lives, i.id, i.service)
	}
	return how, err
}

// measure is nil if id has room left. CodeStorageFull: it has none, or hides what it
// has; RetryAfter is then how long that may stand, so that asking again and again does
// not have it measured all the time.
func (s *Supervisor) measure(ctx context.Context, id tenement.InstanceID, service *tenement.Service) error {
	limit, begin := disk.LimitOf(service.Limits.Storage), time.Now()
	use, err := s.Disk.Measure(ctx, id, limit)
	switch {
	case err == nil && !limit.Reached(use):
		return nil
	case err == nil:
		err = fmt.Errorf("it has stored %s, and may store %s", use, limit)
	case tenement.CodeOf(err) != tenement.CodeConflict && !errors.Is(err, fs.ErrPermission):
		return err // of ours, and it may pass
	}
	return &tenement.Error{
		Code: tenement.CodeStorageFull, Op: "store data of " + id.String(), Err: err,
		Hint:       "remove files from its data directory, or raise storage_quota_mb in [service." + id.Service + "] and type: ten reload",
		RetryAfter: min(max(storagePause, storagePauseShare*time.Since(begin)), longestPause),
	}
}

// refuseForStorage: no start for want of room. The instance is in Backoff, and it is
// no crash.
func (i *instance) refuseForStorage(full *tenement.Error) {
	o := &i.own
	o.storage.full = full
	o.hasServed = false // who asks now is told, and not held
	o.revive = i.sup.plan.Load().pins(i.id)
	o.record.reason = full.Error()
	o.record.retryAt = time.Now().Add(full.RetryAfter)
	i.trouble(tenement.AlertQuota, full.Err.Error())
	i.publish()
	i.failWaiters(full)
	o.timer.Reset(full.RetryAfter)
}

// refusedByStorage is why no request is taken up, now that the instance has used its
// storage up; nil when it has not.
func (i *instance) refusedByStorage() error {
	o := &i.own
	if o.storage.full == nil {
		return nil
	}
	switch o.state {
	case tenement.Draining, tenement.Stopping, tenement.Backoff:
		return o.storage.full
	}
	return nil
}

// watchStorage has a live process measured again and again.
func (i *instance) watchStorage(how disk.Enforcement) {
	if how == disk.Measured {
		i.own.storage.timer.Reset(storagePace)
	}
}

// resumeStorage is watchStorage for a process that an earlier daemon has started.
func (i *instance) resumeStorage() {
	limit := i.service.Limits.Storage
	if limit == 0 {
		return
	}
	if kept, err := i.sup.Disk.Bounded(i.id, i.own.record.uid); err != nil {
		i.sup.Log.Error("look for the storage quota", "instance", i.id, "error", err)
	} else if kept {
		return
	}
	i.watchStorage(disk.Measured)
}

func (i *instance) measureStorage() {
	if i.own.state == tenement.Frozen { // which stores nothing
		i.own.storage.due = true
		return
	}
	if l := i.own.life; l != nil {
		go l.measure(i.sup, i.id)
	}
}

// measure waits for its turn: one directory after the other is looked at, with a pause
// after each.
func (l *life) measure(s *Supervisor, id tenement.InstanceID) {
	select {
	case s.measuring <- struct{}{}:
	case <-l.hurry.Done():
		return
	}
	defer func() { <-s.measuring }()
	begin := time.Now()
	err := s.measure(l.hurry, id, l.service)
	took := time.Since(begin)
	l.measured <- measurement{err, took}
	select {
	case <-time.After((measuringShare - 1) * took):
	case <-l.hurry.Done():
	}
}

func (i *instance) onMeasured(m measurement) {
	o := &i.own
	if o.state == tenement.Stopping || o.life.hasExited() {
		return
	}
	var full *tenement.Error
	if !errors.As(m.err, &full) || full.Code != tenement.CodeStorageFull {
		if m.err != nil {
			i.sup.Log.Error("measure a data directory", "instance", i.id, "error", m.err)
		}
		o.storage.timer.Reset(max(storagePace, storageShare*m.took))
		return
	}
	i.note("%v; put to sleep until there is room", full)
	i.trouble(tenement.AlertQuota, full.Err.Error())
	o.storage.full = full
	o.record.reason = full.Error()
	i.failWaiters(full)
	i.stop(tenement.GoalSleep, nil)
}

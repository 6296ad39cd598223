package supervisor

import (
	"slices"
	"time"

	"tenement"
)

// record is what the registry knows of an instance, and what it is to be told.
type record struct {
	registered bool
	suspended  bool
	createdAt  time.Time
	uid        int         // 0 = none yet
	crashes    []time.Time // oldest first
	retryAt    time.Time   // of Backoff and Failed
	reason     string      // why it is not ready, for operators
	oomKills   int         // ever
	healthyAt  time.Time   // it was known to be well last
	healthNews bool        // the registry does not know healthyAt yet
	evicted    bool        // the reason is that it made room for others
	saved      bool        // the registry holds a failure or a reason of it
	broken     error       // the registry could not be read
}

// load reads the row. All else follows from the state that it leaves.
func (i *instance) load() {
	row, err := i.sup.Store.Instance(i.sup.lives, i.id)
	switch {
	case err == nil:
		i.know(row)
	case tenement.CodeOf(err) != tenement.CodeNotFound:
		i.own.record.broken = err
	}
}

func (i *instance) know(row tenement.Instance) {
	o := &i.own
	o.record = record{
		registered: true,
		suspended:  row.Suspended,
		createdAt:  row.CreatedAt,
		uid:        row.UID,
		crashes:    row.Failure.Crashes,
		retryAt:    row.Failure.RetryAt,
		reason:     row.Failure.Reason,
		oomKills:   row.OOMKills,
		healthyAt:  row.HealthyAt,
		saved:      len(row.Failure.Crashes) > 0 || row.Failure.Reason != "",
	}
	o.state = RestingState(row)
	i.publish()
}

// RestingState is the state of an instance that has no owner, from its row alone.
func RestingState(row tenement.Instance) tenement.State {
	switch {
	case row.Suspended:
		return tenement.Suspended
	case !row.Failure.RetryAt.IsZero():
		return tenement.Failed
	}
	return tenement.Asleep
}

func (r *record) recentCrashes(window time.Duration) int {
	begin := time.Now().Add(-window)
	r.crashes = slices.DeleteFunc(r.crashes, func(at time.Time) bool { return at.Before(begin) })
	return len(r.crashes)
}

// maxCrashes bounds what is remembered. Further crashes change no delay any more.
const maxCrashes = 32

func (r *record) addCrash(window time.Duration) int {
	r.recentCrashes(window)
	r.crashes = append(r.crashes, time.Now())
	if extra := len(r.crashes) - maxCrashes; extra > 0 {
		r.crashes = slices.Delete(r.crashes, 0, extra)
	}
	return len(r.crashes)
}

// forgive forgets all crashes.
func (r *record) forgive() {
	r.crashes, r.retryAt, r.reason = nil, time.Time{}, ""
}

// saveFailure keeps the crashes of an instance that is about to lose its owner, so
// that the budget and the back-off hold for whoever asks next.
func (i *instance) saveFailure() {
	r := &i.own.record
	i.own.record.recentCrashes(i.service.Restart.Window)
	worthSaving := len(r.crashes) > 0 || r.evicted
	var failure tenement.Failure
	if worthSaving {
		failure = tenement.Failure{Crashes: r.crashes, Reason: r.reason}
	}
	if i.own.state == tenement.Failed {
		failure.RetryAt = r.retryAt
	}
	if !r.registered || !worthSaving && !r.saved {
		return
	}
	if err := i.sup.Store.SetFailure(i.sup.lives, i.id, failure); err != nil {
		i.sup.unwritten("record a failure", i.id, err)
		return
	}
	r.saved = worthSaving
}

// isWell notes that the process has just shown itself to be well.
func (i *instance) isWell() {
	i.own.record.healthyAt, i.own.record.healthNews = time.Now(), true
}

// saveHealthyAt keeps what monitors are told while there is no process.
func (i *instance) saveHealthyAt() {
	r := &i.own.record
	if !r.registered || !r.healthNews {
		return
	}
	r.healthNews = false
	if err := i.sup.Store.SetHealthyAt(i.sup.lives, i.id, r.healthyAt); err != nil {
		i.sup.unwritten("note the health", i.id, err)
	}
}

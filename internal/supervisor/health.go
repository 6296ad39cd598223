package supervisor

import (
	"fmt"
	"math/rand/v2"
	"time"

	"tenement"
)

// One failed check makes an instance degraded, this many in a row unhealthy.
const unhealthyAfter = 3

// checkTimeout bounds one health check.
const checkTimeout = 5 * time.Second

// health is the state of an awake instance's checks. They have a clock of their own
// per instance: one that hangs delays no other's.
type health struct {
	timer    *time.Timer
	verdict  tenement.Health
	failures int       // in a row
	asking   bool      // a check is under way
	asked    time.Time // when the last one began, or it became ready
	chance   float64   // 0 to 1, of the time to the next one
}

func (i *instance) watchHealth() {
	h := &i.own.health
	h.failures, h.asking = 0, false
	i.beginQuiet()
	if i.service.Health.Path == "" {
		h.verdict = tenement.HealthUnchecked
		return
	}
	h.verdict = tenement.HealthHealthy // it has just said so
	i.checkNext()
}

// beats is how many beats there are to an interval, on which checks are due.
const beats = 20

// checkNext has the next check come an interval from now, or sooner by less than a beat, so
// that those of all instances fall on the same instants: with a thousand awake, to wake up
// for each of them costs the daemon as much as the checks do.
func (i *instance) checkNext() {
	interval := i.service.Health.Interval
	i.own.health.timer.Reset(interval - time.Duration(time.Now().UnixNano())%max(interval/beats, 1))
}

// resumeHealth goes on after so many failures in a row, with a check at once.
func (i *instance) resumeHealth(failures int) {
	i.watchHealth()
	h := &i.own.health
	if h.verdict == tenement.HealthHealthy {
		h.failures, h.verdict = failures, tenement.HealthUnknown
		h.timer.Reset(0)
	}
}

func (i *instance) stopHealth() {
	i.own.health.timer.Stop()
	if i.own.health.verdict != tenement.HealthUnhealthy {
		i.own.health.verdict = tenement.HealthUnknown
	}
}

// What is well and has been asked for nothing since its last check is checked less often: with
// a thousand awake, checks would be most of what an idle daemon does. All of those together are
// checked about quietChecks times a second, as long as that is within mostQuietIntervals for each.
const (
	quietIntervals     = 6
	mostQuietIntervals = 30
	quietChecks        = 8
)

// quietFor is the time between two checks of a quiet instance where so many are awake. What
// is beyond quietIntervals depends on chance, 0 to 1, so that many that woke at once, or were
// adopted, are not checked at once for ever.
func quietFor(awake int, interval time.Duration, chance float64) time.Duration {
	least := quietIntervals * interval
	turn := min(time.Duration(awake)*time.Second/quietChecks, mostQuietIntervals*interval)
	return least + time.Duration(2*chance*float64(max(0, turn-least)))
}

// beginQuiet is called when a check begins, or is as good as made.
func (i *instance) beginQuiet() {
	i.own.health.asked, i.own.health.chance = time.Now(), rand.Float64()
}

// checkHealth asks once. The next check is due an interval after the answer.
func (i *instance) checkHealth() {
	switch {
	case i.own.state != tenement.Ready:
	case i.isQuiet():
		i.checkNext()
	default:
		i.own.health.asking = true
		i.beginQuiet()
		go i.own.life.check(min(checkTimeout, i.service.Health.Interval))
	}
}

// isQuiet reports whether the check that is due may be left out. The half of an interval is
// because checks come a little sooner or later than a whole number of them.
func (i *instance) isQuiet() bool {
	h, interval := &i.own.health, i.service.Health.Interval
	since := time.Since(h.asked)
	return h.verdict == tenement.HealthHealthy && i.own.life.gate.idle() >= since &&
		since < quietFor(i.sup.countAwake(), interval, h.chance)-interval/2
}

func (i *instance) onChecked(err error) {
	o := &i.own
	h := &o.health
	h.asking = false
	if o.state != tenement.Ready || o.life.hasExited() {
		return
	}
	before, failures := h.verdict, h.failures
	if err == nil {
		h.failures, h.verdict, o.record.reason = 0, tenement.HealthHealthy, ""
		i.isWell()
	} else {
		h.failures++
		h.verdict, o.record.reason = tenement.HealthDegraded, "health check failed: "+err.Error()
	}
	if h.failures >= unhealthyAfter {
		h.verdict = tenement.HealthUnhealthy
		i.note("%d health checks in a row failed; ending it: %v", h.failures, err)
		i.misbehaved(fmt.Errorf("health check failed %d times: %w", h.failures, err))
		return
	}
	if h.verdict != before && before != tenement.HealthUnknown {
		i.note("%s", h.verdict)
	}
	if h.failures != failures {
		i.noteProcess()
	}
	i.publish()
	i.checkNext()
	i.armIdle() // it may have kept the instance from being frozen
}

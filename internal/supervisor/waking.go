package supervisor

import (
	"time"

	"tenement"
)

// Observer is told what becomes of instances, by their owners: it must not wait. Funcs that
// are nil are not called; the others are called concurrently.
type Observer struct {
	// Changed is told of every step from one state to another.
	Changed func(id tenement.InstanceID, from, to tenement.State)
	// Started is told of every process.
	Started func(tenement.InstanceID)
	// Woken is told of every start that has ended: in a process that is ready, or in none.
	// The record is not changed any more.
	Woken func(*tenement.WakeRecord)
	// Ended is told when a process and its whole tree are gone.
	Ended func(tenement.InstanceID, End)
	// Troubled is told of what an operator may have to do something about; the text says
	// more. The same may be told again and again.
	Troubled func(id tenement.InstanceID, what tenement.AlertKind, text string)
}

// End is how a process ended, and what it was to its instance.
type End struct {
	Why   EndReason
	OOM   bool
	Since time.Time      // its start
	Usage tenement.Usage // in all; of what was in no cgroup it is not known
}

// EndReason is why a process ended.
type EndReason string

// The reasons.
const (
	EndCrash     EndReason = "crash" // or was ended for a fault
	EndRestart   EndReason = "restart"
	EndIdle      EndReason = "idle"
	EndEvicted   EndReason = "evicted" // to make room for others
	EndStopped   EndReason = "stopped"
	EndSuspended EndReason = "suspended"
)

// waking is a start under way, for those who want to know what became of it; the owner's.
type waking struct {
	record *tenement.WakeRecord
	phase  time.Time     // the beginning of the present one
	code   tenement.Code // why it comes to nothing; "": nobody has said
}

// follow sees to the record of a wake: a step from before, on t, has just been made.
func (i *instance) follow(before tenement.State, t tenement.Trigger) {
	now := i.own.state
	switch {
	case now == tenement.Starting && before != tenement.Starting:
		i.beginWake()
	case now != tenement.Starting && before == tenement.Starting:
		i.endWake(t)
	}
}

// beginWake begins the record, in the name of whoever has waited longest.
func (i *instance) beginWake() {
	w := &tenement.WakeRecord{Instance: i.id, At: time.Now(), Cause: tenement.CauseRestart}
	i.own.waking = &waking{record: w, phase: w.At}
	first := true
	for _, waiter := range i.own.waiters {
		if waiter.settled.Load() {
			continue
		}
		if first {
			first = false
			asker := waiter.asker
			w.At, w.Cause, w.Client, w.Agent, w.Path = waiter.since, asker.Cause, asker.Client, asker.Agent, asker.Path
			i.own.waking.phase = w.At
		}
		i.own.waking.share(waiter)
	}
}

// share counts a request that waits for the wake; w may be nil.
func (w *waking) share(by *waiter) {
	if w != nil && by.asker.Cause == tenement.CauseRequest {
		w.record.Shared++
	}
}

// endPhase notes how long the present phase took, and begins the next one. w may be nil.
func (w *waking) endPhase(phase func(*tenement.WakeRecord) *time.Duration) {
	if w == nil {
		return
	}
	now := time.Now()
	*phase(w.record) = now.Sub(w.phase)
	w.phase = now
}

func queuePhase(w *tenement.WakeRecord) *time.Duration { return &w.Queue }
func spawnPhase(w *tenement.WakeRecord) *time.Duration { return &w.Spawn }
func readyPhase(w *tenement.WakeRecord) *time.Duration { return &w.Ready }

// blame says why the start under way, if there is one, comes to nothing.
func (i *instance) blame(err error) {
	if w := i.own.waking; w != nil {
		w.code = tenement.CodeOf(err)
	}
}

// endWake gives the record away. Those who wait are given it with their leases.
func (i *instance) endWake(t tenement.Trigger) {
	w := i.own.waking
	i.own.waking = nil
	if w == nil { // begun under another daemon
		return
	}
	switch {
	case t == tenement.IsReady:
		w.endPhase(readyPhase)
		w.record.Outcome = tenement.WakeOK
		i.own.woken = w.record
	case w.code != "":
		w.record.Outcome = string(w.code)
	case t == tenement.Exited:
		w.record.Outcome = string(tenement.CodeUnavailable)
	default: // it was ended, or called off
		w.record.Outcome = string(tenement.CodeCanceled)
	}
	if told := i.sup.Observer.Woken; told != nil {
		told(w.record)
	}
}

// noteStarted reports the process that was just made.
func (i *instance) noteStarted() {
	i.own.waking.endPhase(spawnPhase)
	if told := i.sup.Observer.Started; told != nil {
		told(i.id)
	}
}

// noteEnded reports the end of a process; the instance is where that has led it.
func (i *instance) noteEnded(l *life) {
	told := i.sup.Observer.Ended
	if told == nil {
		return
	}
	e := End{Why: EndStopped, OOM: l.process.Exit().OOM, Since: l.startedAt, Usage: l.used}
	switch o := &i.own; {
	case o.state == tenement.Backoff:
		e.Why = EndCrash
	case o.state == tenement.Starting:
		e.Why = EndRestart
	case o.state == tenement.Suspended:
		e.Why = EndSuspended
	case o.record.evicted:
		e.Why = EndEvicted
	case o.goal == tenement.GoalIdle:
		e.Why = EndIdle
	}
	told(i.id, e)
}

// Waiting is how many requests, and others, wait for instances to be ready.
func (s *Supervisor) Waiting() int { return int(s.waiting.Load()) }

// EachUsage tells what every process that is or was ready uses now, and when it was started.
// What cannot be told, on systems that do not tell or because it has just ended, is left out.
func (s *Supervisor) EachUsage(do func(id tenement.InstanceID, since time.Time, u tenement.Usage)) {
	s.mu.RLock()
	serving := make(map[tenement.InstanceID]*life, len(s.awake))
	for id, i := range s.awake {
		if l := i.serving.Load(); l != nil {
			serving[id] = l
		}
	}
	s.mu.RUnlock()
	for id, l := range serving {
		if u, err := l.process.Usage(); err == nil && !l.hasExited() {
			do(id, l.startedAt, u)
		}
	}
}

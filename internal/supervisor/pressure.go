package supervisor

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"tenement"
)

// What is awake takes room: one of max_awake places, and memory. A start for which there
// is none has the idle instance that was used longest ago put to sleep, and waits for
// its end; while the kernel says that programs wait for memory, nobody needs to ask.
// What is in use is never ended for others.

// Memory is how the supervisor learns of the machine's. Both may be called concurrently.
type Memory struct {
	// Available is what new programs can have. It is asked only if a plan has a reserve.
	Available func() (tenement.Bytes, error)
	// Stalls calls stalled, never twice at once, each time that programs have waited
	// long for memory, until ctx ends. CodeUnavailable: nobody can tell.
	Stalls func(ctx context.Context, stalled func()) error
}

// room counts the places that are taken: by a process, or for one.
type room struct {
	taken  atomic.Int64
	warned atomic.Int64 // when the operator was told last that there is none, on the clock of processStart
}

// take takes a place unless most are taken; 0 = there is no bound.
func (r *room) take(most int) bool {
	for {
		n := r.taken.Load()
		if most > 0 && n >= int64(most) {
			return false
		}
		if r.taken.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// berth is what an instance has of the room; its owner's.
type berth struct {
	taken  bool   // it has a place
	victim *claim // the instance whose end this one waits for; nil: for none
	claim  *claim // why this one was put to sleep; nil: it was not
}

// claim asks one idle instance to sleep, for whoever has made it.
type claim struct {
	why  string
	gone chan bool // receives once: true when no process is left, false if it was in use after all
}

func (c *claim) settled() <-chan bool {
	if c == nil {
		return nil
	}
	return c.gone
}

// roomPause is what a pinned instance waits for that found no room, and what a client is
// told to wait.
const roomPause = 2 * time.Second

// hasRoom takes what a process needs, if it is there. False: an idle instance makes room,
// and then the start is queued anew; or it was refused; or it was called off, because
// nobody waits for it any more.
func (i *instance) hasRoom() bool {
	o := &i.own
	lack := i.lack()
	if lack == nil {
		return true
	}
	kept := i.sup.plan.Load().pins(i.id)
	if !kept && !i.wanted() {
		i.stop(i.goalAtRest(), nil)
		return false
	}
	if lack.Code == tenement.CodeFull {
		if o.berth.victim = i.sup.evict(lack.Err.Error()); o.berth.victim != nil {
			i.takePlace() // beyond the bound, until the other one is gone
			o.ticket.leave()
			return false
		}
	}
	i.sup.warnFull(lack)
	i.blame(lack)
	i.failWaiters(lack)
	if kept {
		i.tryAgain(lack)
	} else {
		i.stop(i.goalAtRest(), nil)
	}
	return false
}

// warnPace is how often the operator is told that starts are refused.
const warnPace = time.Minute

func (s *Supervisor) warnFull(lack *tenement.Error) {
	now, last := int64(time.Since(processStart)), s.room.warned.Load()
	if last != 0 && now-last < int64(warnPace) || !s.room.warned.CompareAndSwap(last, now) {
		return
	}
	s.Log.Warn("starts are refused", "reason", lack.Err, "hint", lack.Hint)
}

// lack is why no process can be started now; nil: it can, and there is a place for it.
func (i *instance) lack() *tenement.Error {
	plan := i.sup.plan.Load()
	if !i.own.berth.taken {
		if !i.sup.room.take(plan.MaxAwake) {
			return i.full(fmt.Errorf("max_awake = %d is reached", plan.MaxAwake), "raise max_awake in [settings]")
		}
		i.own.berth.taken = true
	}
	short, err := i.sup.shortOfMemory()
	switch {
	case err != nil:
		return &tenement.Error{Code: tenement.CodeUnavailable, Op: "start " + i.id.String(), Err: err, RetryAfter: roomPause}
	case short:
		return i.full(fmt.Errorf("memory is short: less than memory_reserve_mb = %d is available", plan.MemoryReserve>>20),
			"give the machine more memory, or lower memory_reserve_mb in [settings]")
	}
	return nil
}

// full is the answer when nothing that is awake can make room.
func (i *instance) full(why error, hint string) *tenement.Error {
	return &tenement.Error{
		Code: tenement.CodeFull, Op: "start " + i.id.String(), Err: why,
		Hint: "every awake instance is in use or pinned: " + hint + " and type: ten reload", RetryAfter: roomPause,
	}
}

// shortOfMemory reports whether less is available than the reserve.
func (s *Supervisor) shortOfMemory() (bool, error) {
	reserve := s.plan.Load().MemoryReserve
	if reserve == 0 {
		return false, nil
	}
	available, err := s.Memory.Available()
	return available < reserve, err
}

// tryAgain has a pinned instance wait until there may be room, or somebody asks for it.
// It is no crash.
func (i *instance) tryAgain(lack *tenement.Error) {
	o := &i.own
	if o.record.reason != lack.Error() {
		i.note("%v", lack)
	}
	i.leaveQueue()
	i.leaveRoom()
	i.step(tenement.Exited)
	o.revive, o.hasServed = true, true // a request has it tried at once
	o.record.reason = lack.Error()
	o.record.retryAt = time.Now().Add(roomPause)
	i.publish()
	o.timer.Reset(roomPause)
}

// onRoomMade goes on with a start that has waited for another instance's end. One that
// was in use after all has not made room.
func (i *instance) onRoomMade(gone bool) {
	i.own.berth.victim = nil
	if !gone {
		i.leaveRoom()
	}
	i.queue()
}

// takePlace takes a place even where there is none.
func (i *instance) takePlace() {
	if b := &i.own.berth; !b.taken {
		b.taken = true
		i.sup.room.taken.Add(1)
	}
}

// leaveRoom is called when there is no process, and none is to be started: the place is
// free, and whoever has waited for that is told.
func (i *instance) leaveRoom() {
	b := &i.own.berth
	if b.taken {
		i.sup.room.taken.Add(-1)
	}
	if b.claim != nil {
		i.settleClaim(b.claim, true)
	}
	*b = berth{}
}

// evict has the idle instance that was used longest ago put to sleep; nil: none is idle,
// or it could not be woken again. Others who ask at the same time get another one.
func (s *Supervisor) evict(why string) *claim {
	if s.Store.Refused() != nil {
		return nil
	}
	c := &claim{why: why, gone: make(chan bool, 1)}
	s.mu.RLock() // while it is held no owner ends that is in awake
	defer s.mu.RUnlock()
	for {
		victim := s.leastRecentlyUsed()
		if victim == nil {
			return nil
		}
		if victim.claimed.CompareAndSwap(nil, c) {
			victim.prod()
			return c
		}
	}
}

// leastRecentlyUsed is an idle instance, or nil. It needs mu.
func (s *Supervisor) leastRecentlyUsed() (oldest *instance) {
	var since int64
	plan := s.plan.Load()
	for id, i := range s.awake {
		used, idle := i.lastUse()
		if idle && (oldest == nil || used < since) && !plan.pins(id) {
			oldest, since = i, used
		}
	}
	return oldest
}

// lastUse may be called by anyone; idle is false when the instance is in use, waited
// for, claimed or not awake. The owner has the last word.
func (i *instance) lastUse() (at int64, idle bool) {
	l, st := i.serving.Load(), i.published.Load()
	if l == nil || st == nil || i.claimed.Load() != nil || i.waiting.Load() > 0 || l.gate.count() > 0 {
		return 0, false
	}
	return l.gate.lastUse.Load(), st.State == tenement.Ready || st.State == tenement.Frozen
}

// onClaim goes to sleep for others, unless it is in use.
func (i *instance) onClaim() {
	c, b := i.claimed.Load(), &i.own.berth
	if c == nil || b.claim != nil {
		return
	}
	if !i.yields() {
		i.settleClaim(c, false)
		return
	}
	b.claim = c
	i.own.record.evicted = true
	i.own.record.reason = "put to sleep: " + c.why
	i.stop(tenement.GoalSleep, nil)
	i.onDrained()
	i.note("put to sleep: %s", c.why)
	e := tenement.Event{At: time.Now(), Actor: tenement.ActorDaemon, Action: "sleep", Target: i.id.String(), Outcome: "ok", Detail: c.why}
	if err := i.sup.Store.AppendEvent(i.sup.lives, e); err != nil && i.sup.Store.Refused() == nil {
		i.sup.Log.Error("the audit log could not be written", "event", e, "error", err)
	}
}

// yields reports whether the instance is idle, and if so it takes no more leases.
func (i *instance) yields() bool {
	if i.waiting.Load() > 0 || i.sup.plan.Load().pins(i.id) || i.sup.Store.Refused() != nil {
		return false
	}
	switch i.own.state {
	case tenement.Ready: // else its end is being reported
		return !i.own.life.hasExited() && i.own.life.gate.closeIfIdle()
	case tenement.Frozen:
		return true
	}
	return false
}

// settleClaim answers whoever has claimed this instance.
func (i *instance) settleClaim(c *claim, gone bool) {
	i.claimed.Store(nil)
	c.gone <- gone
}

// refuseClaim is the last thing an owner does: a claim that came too late is answered.
func (i *instance) refuseClaim() {
	if c := i.claimed.Load(); c != nil {
		i.settleClaim(c, false)
	}
}

// trim has as many instances put to sleep as exceed max_awake, so far as they are idle.
func (s *Supervisor) trim() {
	most := s.plan.Load().MaxAwake
	if most == 0 {
		return
	}
	for range s.room.taken.Load() - int64(most) {
		if s.evict(fmt.Sprintf("max_awake = %d is exceeded", most)) == nil {
			return
		}
	}
}

// reliefPause is what memory has to recover, once an instance has ended, before it is looked at again.
const reliefPause = time.Second

// relieve answers stalls until ctx ends. Where nobody can tell of them, only starts look
// at memory.
func (s *Supervisor) relieve(ctx context.Context) {
	if s.Memory.Stalls == nil {
		return
	}
	err := s.Memory.Stalls(ctx, func() { s.onStall(ctx) })
	switch {
	case tenement.CodeOf(err) == tenement.CodeUnavailable:
		s.Log.Info("memory is looked at only when something starts", "reason", err, "hint", tenement.HintOf(err))
	case err != nil:
		s.Log.Error("watch for programs that wait for memory", "error", err)
	}
}

// onStall puts one idle instance to sleep, and then others while the reserve is not met.
// While the stall goes on, there will be another one.
func (s *Supervisor) onStall(ctx context.Context) {
	for ctx.Err() == nil {
		c := s.evict("programs wait for memory")
		if c == nil {
			return
		}
		select {
		case <-c.gone:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(reliefPause):
		case <-ctx.Done():
			return
		}
		if short, err := s.shortOfMemory(); !short || err != nil {
			return
		}
	}
}
